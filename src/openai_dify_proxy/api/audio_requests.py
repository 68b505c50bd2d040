"""Reads the form of a transcription request."""

from __future__ import annotations

from msgspec import Struct
from starlette.datastructures import UploadFile
from starlette.requests import Request

from openai_dify_proxy.api.bodies import BodyReader
from openai_dify_proxy.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType
from openai_dify_proxy.translate.audio.formats import FORMATS, AudioFormat, detect_audio
from openai_dify_proxy.translate.openai.parameter_errors import join_words, missing_parameter
from openai_dify_proxy.translate.openai.transcriptions import TranscriptionRequest, read_transcription

MAX_AUDIO_BYTES = 30 * 1024 * 1024
"""The largest file that Dify's speech-to-text accepts. Source: its source, 0.15 to 1.16."""

MAX_FIELDS = 64


class Recording(Struct, frozen=True):
    """A transcription request with its file."""

    request: TranscriptionRequest
    audio: bytes
    format: AudioFormat


async def read_recording(request: Request, bodies: BodyReader) -> Recording:
    """Parse a transcription request. Raises ProxyError and ClientDisconnected."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UnsupportedMediaType("Send the audio file as a form: 'Content-Type: multipart/form-data'.")
    # A stream may start long before the file is sent.
    form = await bodies.read_form(request, max_files=1, max_fields=MAX_FIELDS, until_end=True)
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise missing_parameter("file")
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        parsed = read_transcription(fields)
        audio = await file.read()
    finally:
        await form.close()  # removes temporary files
    return Recording(parsed, audio, _format_of(audio))


def _format_of(audio: bytes) -> AudioFormat:
    if not audio:
        raise InvalidRequest("The audio file is empty.", param="file")
    if len(audio) > MAX_AUDIO_BYTES:
        raise BodyTooLarge(f"The audio file is too large. Dify accepts at most {MAX_AUDIO_BYTES} bytes.", param="file")
    found = detect_audio(audio)
    if found is None:
        supported = join_words([known.extension for known in FORMATS], "and")
        raise InvalidRequest(
            f"Invalid file format. Supported formats are: {supported}.", param="file", code="unsupported_audio_type"
        )
    return found
