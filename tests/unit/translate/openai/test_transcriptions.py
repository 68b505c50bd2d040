"""Read the fields of transcriptions, and encode their answers in OpenAI's formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.transcriptions import (
    encode_transcript_events,
    encode_transcription,
    read_transcription,
)


def test_the_defaults_are_those_of_openai() -> None:
    request = read_transcription({"model": "whisper-1", "prompt": ""})
    assert (request.model, request.response_format, request.stream) == ("whisper-1", "json", False)
    assert (request.language, request.user, request.unsupported) == (None, None, ())


def test_fields_are_read_from_text() -> None:
    request = read_transcription({"stream": "true", "response_format": "verbose_json", "user": "anna", "extra": "1"})
    assert (request.model, request.response_format, request.stream) == (None, "verbose_json", True)
    assert (request.user, request.unsupported) == ("anna", ())
    assert not read_transcription({"stream": "false"}).stream


IGNORED = {
    "language": ({"language": "de"}, ("language",)),
    "prompt": ({"prompt": "Names: Ada"}, ("prompt",)),
    "temperature": ({"temperature": "0.2"}, ("temperature",)),
    "the default temperature": ({"temperature": "0"}, ()),
    "lists": (
        {"timestamp_granularities[]": "word", "include[]": "logprobs"},
        ("timestamp_granularities[]", "include[]"),
    ),
    "several": ({"temperature": "1", "language": "de"}, ("language", "temperature")),
}


@pytest.mark.parametrize(("form", "names"), IGNORED.values(), ids=IGNORED)
def test_fields_without_effect_are_named(form: dict[str, str], names: tuple[str, ...]) -> None:
    assert read_transcription(form).unsupported == names


INVALID = {
    "times in SRT": ({"response_format": "srt"}, "response_format", "unsupported_parameter"),
    "times in VTT": ({"response_format": "vtt"}, "response_format", "unsupported_parameter"),
    "speakers": ({"response_format": "diarized_json"}, "response_format", "unsupported_parameter"),
    "an unknown format": ({"response_format": "xml"}, "response_format", "invalid_value"),
    "a temperature above 1": ({"temperature": "1.5"}, "temperature", "decimal_above_max_value"),
    "a temperature that is no number": ({"temperature": "warm"}, "temperature", "invalid_type"),
    "stream that is no boolean": ({"stream": "maybe"}, "stream", "invalid_type"),
    "a long model name": ({"model": "m" * 257}, "model", "string_above_max_length"),
}


@pytest.mark.parametrize(("form", "param", "code"), INVALID.values(), ids=INVALID)
def test_an_invalid_field_is_named(form: dict[str, str], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_transcription(form)
    assert (caught.value.param, caught.value.code) == (param, code)


ANSWERS: dict[str, tuple[dict[str, str], Any]] = {
    "json": ({}, {"text": "Grüße"}),
    "verbose_json": ({"response_format": "verbose_json"}, {"task": "transcribe", "text": "Grüße"}),
    "verbose_json with a language": (
        {"response_format": "verbose_json", "language": "de"},
        {"task": "transcribe", "language": "de", "text": "Grüße"},
    ),
}


@pytest.mark.parametrize(("form", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_has_the_requested_format(form: dict[str, str], expected: Any) -> None:
    assert json.loads(encode_transcription(read_transcription(form), "Grüße")) == expected


def test_a_text_answer_is_plain_text() -> None:
    request = read_transcription({"response_format": "text"})
    assert encode_transcription(request, "Grüße").decode() == "Grüße\n"


@pytest.mark.parametrize(
    ("text", "types"), [("hi", ["transcript.text.delta", "transcript.text.done"]), ("", ["transcript.text.done"])]
)
def test_a_stream_ends_with_the_whole_text(text: str, types: list[str]) -> None:
    frames = encode_transcript_events(text).decode().removesuffix("\n\n").split("\n\n")
    events = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    assert [event["type"] for event in events] == types
    assert "".join(event.get("delta", "") for event in events) == events[-1]["text"] == text
