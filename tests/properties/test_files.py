"""Files in content parts: every spelling of the same content gives the same file, and nothing crashes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from msgspec import DecodeError, json

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.file_types import detect, safe_name
from openai_dify_proxy.translate.history import Fingerprint
from openai_dify_proxy.translate.openai.file_parts import FILE_PARTS, FileReader
from openai_dify_proxy.translate.turn_request import HistoryMessage, SentFile
from openai_dify_proxy.wire.openai.chat import ContentPart


def lines(data: bytes) -> bytes:
    return base64.b64encode(data) + b"\r\n"


def unpadded(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


SPELLINGS: tuple[Callable[[bytes], bytes], ...] = (
    base64.b64encode,
    base64.urlsafe_b64encode,
    base64.encodebytes,
    lines,
    unpadded,
)


@given(st.binary(min_size=1, max_size=300), st.sampled_from(SPELLINGS), st.booleans())
def test_every_spelling_of_base64_gives_the_same_bytes(data: bytes, spell: Callable[[bytes], bytes], uri: bool) -> None:
    encoded = spell(data).decode()
    text = f"data:application/octet-stream;base64,{encoded}" if uri else encoded
    part = json.decode(json.encode({"type": "file", "file": {"file_data": text}}), type=ContentPart)
    reader = FileReader()
    file = reader.read(part, "p")
    assert file.digest == hashlib.sha256(data).hexdigest()
    assert reader.contents is not None
    assert reader.contents.get(file.digest) == data


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.just("data:a;base64,AA==")
    | st.just("http://a"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "data", "file_data", "file_id", "filename", "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["image_url", "input_audio", "audio_url", "video_url", "file", "file_data", "file_url", "file_id", "filename"]
)


@given(st.sampled_from(sorted(FILE_PARTS)), st.dictionaries(FIELDS, VALUES, max_size=4))
def test_any_part_is_a_file_or_an_error_with_its_path(kind: str, fields: dict[str, object]) -> None:
    part = json.decode(json.encode({**fields, "type": kind}), type=ContentPart)
    param: str | None = None
    try:
        assert FileReader().read(part, "messages[0].content[0]").identity
    except InvalidRequest as error:
        param = error.param
    assert param is None or param.startswith("messages[0].content[0]")


@given(st.binary(max_size=60), st.text(max_size=30), st.text(max_size=30))
def test_any_bytes_have_a_type_that_a_header_can_hold(data: bytes, name: str, media_type: str) -> None:
    found = detect(data, name, media_type)
    assert (found.extension.isalnum(), found.media_type.isascii()) == (True, True)
    assert not set(safe_name(name)) & set('/\\:*?"<>|\r\n\0')


@given(st.binary(max_size=80))
def test_any_json_of_a_source_is_read_or_rejected(raw: bytes) -> None:
    with suppress(DecodeError):
        part = json.decode(b'{"type":"image_url","image_url":%b}' % raw, type=ContentPart)
        with suppress(InvalidRequest):
            FileReader().read(part, "p")


FILE = st.builds(SentFile, st.just("image"), digest=st.sampled_from(["a", "b"]), url=st.sampled_from(["", "http://a"]))
MESSAGES = st.lists(
    st.builds(
        HistoryMessage,
        st.sampled_from(["user", "tool"]),
        st.sampled_from(["", "x"]),
        call_id=st.sampled_from([None, "1"]),
        files=st.lists(FILE, max_size=2).map(tuple),
    ),
    max_size=3,
)


def content(messages: list[HistoryMessage]) -> list[object]:
    return [
        (message.role, message.text, message.call_id, [file.identity for file in message.files])
        for message in messages
        if message.text or message.files or message.call_id is not None
    ]


@given(MESSAGES, MESSAGES)
def test_fingerprints_differ_exactly_if_a_message_or_file_does(
    one: list[HistoryMessage], other: list[HistoryMessage]
) -> None:
    def digest(messages: list[HistoryMessage]) -> bytes:
        fingerprint = Fingerprint(b"secret")
        fingerprint.add_messages(messages)
        return fingerprint.digest()

    assert (digest(one) == digest(other)) == (content(one) == content(other))
