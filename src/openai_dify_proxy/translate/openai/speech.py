"""Reads speech requests, and encodes the events of a streamed answer."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from msgspec import Struct, json

from openai_dify_proxy.translate.openai.parameter_errors import empty_value, invalid_value, too_long
from openai_dify_proxy.wire.openai.audio import MAX_SPOKEN, SpeechDelta, SpeechDone, SpeechRequest

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""The content type of each ``response_format``, as OpenAI's API names it."""

STREAM_FORMATS = ("audio", "sse")

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)
OPENAI_SPEECH_MODELS = ("gpt-4o-mini-tts", "tts-1", "tts-1-hd")

ANY_VOICE = "*"
"""The name in the map of voices that stands for all names that it lacks."""


class SpokenText(Struct, frozen=True, kw_only=True):
    """A valid speech request. ``voice`` is the client's name; ``unsupported`` names the fields without effect."""

    text: str
    model: str | None
    voice: str | None
    response_format: str
    events: bool
    """Whether the answer is a stream of events instead of the bare file."""
    user: str | None
    unsupported: tuple[str, ...]


def read_speech(request: SpeechRequest) -> SpokenText:
    """Return the request with OpenAI's defaults. Raises InvalidRequest."""
    if not request.input.strip():
        raise empty_value("input", "")
    if len(request.input) > MAX_SPOKEN:
        raise too_long("input", request.input, MAX_SPOKEN)
    wanted = request.response_format or "mp3"
    if wanted not in MEDIA_TYPES:
        raise invalid_value("response_format", wanted, MEDIA_TYPES)
    streamed = request.stream_format or "audio"
    if streamed not in STREAM_FORMATS:
        raise invalid_value("stream_format", streamed, STREAM_FORMATS)
    voice = request.voice
    unsupported = ["instructions"] if request.instructions else []
    if request.speed not in (None, 1):
        unsupported.append("speed")
    return SpokenText(
        text=request.input,
        model=request.model,
        voice=voice if voice is None or isinstance(voice, str) else voice.id,
        response_format=wanted,
        events=streamed == "sse",
        user=request.user,
        unsupported=tuple(unsupported),
    )


def app_voice(voices: Mapping[str, str], name: str | None) -> str | None:
    """Return the app's voice for a client's ``name``; None for the voice that is set in the app.

    ``voices`` maps names to the app's voices; an empty one stands for the voice of the app. A name that it lacks is
    the app's own.
    """
    if not name:
        return None
    return voices.get(name, voices.get(ANY_VOICE, name)) or None


def voice_names(voices: Mapping[str, str]) -> list[str]:
    """Return the names of all voices that clients can choose: those of the map first, then OpenAI's."""
    return [name for name in dict.fromkeys((*voices, *OPENAI_VOICES)) if name != ANY_VOICE]


def encode_speech_delta(audio: bytes) -> bytes:
    return b"data: %b\n\n" % json.encode(SpeechDelta(b64encode(audio).decode()))


def encode_speech_done() -> bytes:
    return b"data: %b\n\n" % json.encode(SpeechDone())
