"""Read speech requests, and find the app's voice."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import msgspec
import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.speech import (
    app_voice,
    encode_speech_delta,
    encode_speech_done,
    read_speech,
    voice_names,
)
from openai_dify_proxy.wire.openai.audio import SpeechRequest


def request(**fields: Any) -> SpeechRequest:
    return msgspec.convert({"input": "Hello", **fields}, SpeechRequest)


def test_the_defaults_are_those_of_openai() -> None:
    spoken = read_speech(request())
    assert (spoken.text, spoken.model, spoken.voice, spoken.user) == ("Hello", None, None, None)
    assert (spoken.response_format, spoken.events, spoken.unsupported) == ("mp3", False, ())


def test_all_fields_are_read() -> None:
    spoken = read_speech(
        request(model="tts-1", voice={"id": "voice_1"}, response_format="wav", stream_format="sse", user="anna")
    )
    assert (spoken.model, spoken.voice, spoken.user) == ("tts-1", "voice_1", "anna")
    assert (spoken.response_format, spoken.events) == ("wav", True)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"speed": 1.5, "instructions": "Whisper."}, ("instructions", "speed")),
        ({"speed": 1.0, "instructions": ""}, ()),
        ({"stream_format": "audio", "voice": "alloy"}, ()),
    ],
)
def test_fields_without_effect_are_named(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    assert read_speech(request(**fields)).unsupported == names


INVALID = {
    "no text": ({"input": ""}, "input", "empty_string"),
    "white space": ({"input": " \n"}, "input", "empty_string"),
    "a long text": ({"input": "a" * 4097}, "input", "string_above_max_length"),
    "an unknown format": ({"response_format": "midi"}, "response_format", "invalid_value"),
    "an unknown stream format": ({"stream_format": "ws"}, "stream_format", "invalid_value"),
}


@pytest.mark.parametrize(("fields", "param", "code"), INVALID.values(), ids=INVALID)
def test_an_invalid_field_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_speech(request(**fields))
    assert (caught.value.param, caught.value.code) == (param, code)


def test_the_longest_text_is_accepted() -> None:
    assert len(read_speech(request(input="a" * 4096)).text) == 4096


MAP = {"alloy": "en-US-AvaNeural", "echo": ""}


@pytest.mark.parametrize(
    ("voices", "name", "voice"),
    [
        (MAP, "alloy", "en-US-AvaNeural"),
        (MAP, "echo", None),
        (MAP, "zh-CN-XiaoxiaoNeural", "zh-CN-XiaoxiaoNeural"),
        (MAP, None, None),
        (MAP, "", None),
        ({}, "alloy", "alloy"),
        ({"*": ""}, "alloy", None),
        ({**MAP, "*": "other"}, "nova", "other"),
        ({**MAP, "*": "other"}, "alloy", "en-US-AvaNeural"),
        ({**MAP, "*": "other"}, None, None),
    ],
)
def test_the_voice_of_the_app(voices: dict[str, str], name: str | None, voice: str | None) -> None:
    assert app_voice(voices, name) == voice


def test_mapped_voices_are_listed_first_and_once() -> None:
    names = voice_names({"narrator": "x", "alloy": "y", "*": "z"})
    assert names[:3] == ["narrator", "alloy", "ash"]
    assert len(names) == len(set(names)) == 14
    assert "*" not in names


def test_events_hold_the_audio_in_base64() -> None:
    delta = json.loads(encode_speech_delta(b"\0\xff\x80").removeprefix(b"data: "))
    assert (delta["type"], b64decode(delta["audio"])) == ("speech.audio.delta", b"\0\xff\x80")
    assert json.loads(encode_speech_done().removeprefix(b"data: ")) == {"type": "speech.audio.done"}
