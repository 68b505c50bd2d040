"""Reads the fields of a transcription request, and encodes its answer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Struct, json

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import invalid_value, unreadable_request
from openai_dify_proxy.wire.openai.audio import (
    TranscriptDelta,
    TranscriptDone,
    Transcription,
    TranscriptionFields,
    VerboseTranscription,
)
from openai_dify_proxy.wire.reading import UNREADABLE

FORMATS = ("json", "text", "verbose_json")
TIMED_FORMATS = ("srt", "vtt", "diarized_json")
"""Formats with times or speakers, which Dify does not report."""

_LISTS = ("timestamp_granularities", "include", "known_speaker_names", "known_speaker_references", "keywords")
_WITHOUT_EFFECT = ("language", "prompt", *_LISTS, *(f"{name}[]" for name in _LISTS))


class TranscriptionRequest(Struct, frozen=True, kw_only=True):
    """A transcription request, without its file. ``unsupported`` names the fields that have no effect."""

    model: str | None
    response_format: str
    stream: bool
    language: str | None
    user: str | None
    unsupported: tuple[str, ...]


def read_transcription(form: Mapping[str, str]) -> TranscriptionRequest:
    """Return the request with the text fields of ``form``. Empty ones count as absent. Raises InvalidRequest."""
    values = {name: value for name, value in form.items() if value != ""}
    try:
        fields = msgspec.convert(values, TranscriptionFields, strict=False)
    except UNREADABLE as exc:
        raise unreadable_request(exc, values, TranscriptionFields) from None
    wanted = fields.response_format or "json"
    if wanted in TIMED_FORMATS:
        raise InvalidRequest(
            f"response_format '{wanted}' is not supported: Dify returns only the text, without times or speakers. "
            "Use json, text or verbose_json.",
            param="response_format",
            code="unsupported_parameter",
        )
    if wanted not in FORMATS:
        raise invalid_value("response_format", wanted, FORMATS)
    unsupported = [name for name in _WITHOUT_EFFECT if name in values]
    if fields.temperature:
        unsupported.append("temperature")
    return TranscriptionRequest(
        model=fields.model,
        response_format=wanted,
        stream=bool(fields.stream),
        language=fields.language,
        user=fields.user,
        unsupported=tuple(unsupported),
    )


def encode_transcription(request: TranscriptionRequest, text: str) -> bytes:
    """Return the body of an answer that is not streamed: plain text for ``text``, else JSON."""
    if request.response_format == "text":
        return f"{text}\n".encode()
    if request.response_format == "verbose_json":
        return json.encode(VerboseTranscription(language=request.language or UNSET, text=text))
    return json.encode(Transcription(text=text))


def encode_transcript_events(text: str) -> bytes:
    """Return all frames of a streamed answer. Dify sends the text in one piece."""
    events = [TranscriptDelta(text)] if text else []
    return b"".join(b"data: %b\n\n" % json.encode(event) for event in [*events, TranscriptDone(text)])
