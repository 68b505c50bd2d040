"""Parse the form of a transcription with Python's own parser."""

from __future__ import annotations

import email
import email.policy

import pytest

from openai_dify_proxy.translate.audio.formats import FORMATS, AudioFormat
from openai_dify_proxy.translate.dify.audio_form import encode_audio_form


@pytest.mark.parametrize("found", FORMATS, ids=lambda found: found.extension)
@pytest.mark.parametrize("audio", [b"\0\xff\r\n--x\r\n\x85" * 100, b"\n"], ids=["binary", "one line end"])
def test_the_form_has_the_file_and_the_user(found: AudioFormat, audio: bytes) -> None:
    body = encode_audio_form(audio, found, "proxy-üser", "0123abcd")
    parsed = email.message_from_bytes(
        b"Content-Type: multipart/form-data; boundary=0123abcd\r\n\r\n" + body, policy=email.policy.HTTP
    )
    file, user = parsed.iter_parts()
    assert file.get_payload(decode=True) == audio
    assert file.get_content_type() == found.dify_type
    assert (file.get_filename(), file.get_param("name", header="content-disposition")) == (
        f"audio.{found.extension}",
        "file",
    )
    assert user.get_payload(decode=True) == "proxy-üser".encode()
    assert (user.get_filename(), user.get_param("name", header="content-disposition")) == (None, "user")
