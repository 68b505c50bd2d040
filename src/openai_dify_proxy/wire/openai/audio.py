"""The messages of ``/v1/audio/*``.

Requests declare the fields that the proxy uses or names as having no effect.
Source: the OpenAI API reference. The lists of models and voices have the form that Open WebUI reads.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.json import Decoder

from openai_dify_proxy.wire.openai.chat import ModelName

MAX_SPOKEN = 4096
"""Characters that OpenAI's API speaks in one request."""


class TranscriptionFields(Struct, kw_only=True):
    """The fields of the form of a transcription, besides its file. Those after ``user`` have no effect."""

    model: ModelName | None = None
    response_format: str | None = None
    stream: bool | None = None
    user: str | None = None
    language: str | None = None
    prompt: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None


class VoiceReference(Struct):
    """A voice named by its id."""

    id: str


class SpeechRequest(Struct, kw_only=True):
    """``POST /v1/audio/speech``. The fields after ``user`` have no effect."""

    input: str
    model: ModelName | None = None
    voice: Annotated[str, Meta(max_length=256)] | VoiceReference | None = None
    response_format: str | None = None
    stream_format: str | None = None
    user: str | None = None
    instructions: str | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4)] | None = None


class Transcription(Struct, kw_only=True):
    text: str


class VerboseTranscription(Struct, kw_only=True):
    """Dify reports neither the duration nor the times of words; ``language`` is the one of the request."""

    task: Literal["transcribe"] = "transcribe"
    language: str | UnsetType = UNSET
    text: str


class TranscriptDelta(Struct, tag="transcript.text.delta"):
    delta: str


class TranscriptDone(Struct, tag="transcript.text.done"):
    text: str


class SpeechDelta(Struct, tag="speech.audio.delta"):
    audio: str


class SpeechDone(Struct, tag="speech.audio.done"):
    pass


class AudioModel(Struct, kw_only=True):
    id: str
    name: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["dify"] = "dify"


class AudioModels(Struct, kw_only=True):
    """The same models twice: as Open WebUI reads them, and in the form of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[AudioModel]
    models: list[AudioModel]


class Voice(Struct):
    id: str
    name: str


class Voices(Struct):
    voices: list[Voice]


SPEECH_REQUEST: Decoder[SpeechRequest] = Decoder(SpeechRequest)
