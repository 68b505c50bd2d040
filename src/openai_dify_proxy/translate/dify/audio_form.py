"""The form with which Dify's speech-to-text receives a file."""

from __future__ import annotations

from openai_dify_proxy.translate.audio.formats import AudioFormat


def encode_audio_form(audio: bytes, found: AudioFormat, user: str, boundary: str) -> bytes:
    """Return a ``multipart/form-data`` body for ``POST /audio-to-text``.

    The name and the type of the file come from its format, never from the client. ``boundary`` must not occur in the
    file.
    """
    file = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="audio.{found.extension}"\r\n'
        f"Content-Type: {found.dify_type}\r\n\r\n"
    )
    rest = f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="user"\r\n\r\n{user}\r\n--{boundary}--\r\n'
    return b"".join((file.encode(), audio, rest.encode()))
