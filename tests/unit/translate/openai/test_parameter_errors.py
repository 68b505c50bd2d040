"""Messages and codes of api.openai.com, for the bodies that the proxy reads."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import (
    check_range,
    empty_value,
    invalid_length,
    invalid_type,
    invalid_value,
    join_words,
    quotable,
    too_long,
    unreadable_request,
)
from openai_dify_proxy.wire.openai.chat import COMPLETION_REQUEST
from openai_dify_proxy.wire.openai.conversations import CONVERSATION_REQUEST
from openai_dify_proxy.wire.openai.images import IMAGE_REQUEST, ImageRequest
from openai_dify_proxy.wire.openai.responses import CHAT_OR_INPUT_REQUEST, ITEM_TEXT, RESPONSES_REQUEST
from openai_dify_proxy.wire.reading import UNREADABLE, Limit


def failure(body: bytes, decoder: msgspec.json.Decoder[Any], at: str = "") -> InvalidRequest:
    with pytest.raises(UNREADABLE) as caught:
        decoder.decode(body)
    return unreadable_request(caught.value, body, decoder.type, at=at)


ROLES = "Supported values are: 'system', 'developer', 'user', 'assistant', 'tool' and 'function'."
LONG = b"x" * 300

# The decoder and the body; the message, param and code.
FAILURES: list[tuple[msgspec.json.Decoder[Any], bytes, str, str | None, str | None]] = [
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":[{"role":"user","content":5}]}',
        "Invalid type for 'messages[0].content': expected a string or an array, got an integer.",
        "messages[0].content",
        "invalid_type",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":[{"role":"user","content":["Hi"]}]}',
        "Invalid type for 'messages[0].content[0]': expected an object, got a string.",
        "messages[0].content[0]",
        "invalid_type",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":null}',
        "Invalid type for 'messages': expected an array, got null.",
        "messages",
        "invalid_type",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":[{"content":"Hi"}]}',
        "Missing required parameter: 'messages[0].role'.",
        "messages[0].role",
        "missing_required_parameter",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":[{"role":"user","content":"Hi"},{"role":"human","content":"Hi"}]}',
        f"Invalid value: 'human'. {ROLES}",
        "messages[1].role",
        "invalid_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":[{"role":"it\'s\\n","content":"Hi"}]}',
        f"Invalid value: 'it's\\n'. {ROLES}",
        "messages[0].role",
        "invalid_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":[{"role":"' + LONG + b'"}]}',
        f"Invalid value: '{'x' * 64}…'. {ROLES}",
        "messages[0].role",
        "invalid_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":[{"role":"sk-proj-0123456789abcdef"}]}',
        f"Invalid value: 'sk-***'. {ROLES}",
        "messages[0].role",
        "invalid_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"n":500}',
        "Invalid 'n': integer above maximum value. Expected a value <= 128, but got 500 instead.",
        "n",
        "integer_above_max_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"n":0}',
        "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        "n",
        "integer_below_min_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"n":' + b"9" * 50 + b"}",
        "Invalid 'n': integer above maximum value. Expected a value <= 128.",
        "n",
        "integer_above_max_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"n":0,"user":',
        "Invalid 'n': integer below minimum value. Expected a value >= 1.",
        "n",
        "integer_below_min_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"n":1e999}',
        "Invalid 'n': number out of range. Send a number that fits into 64 bits.",
        "n",
        "invalid_value",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"n":true}',
        "Invalid type for 'n': expected an integer, got a boolean.",
        "n",
        "invalid_type",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"stream":"yes"}',
        "Invalid type for 'stream': expected a boolean, got a string.",
        "stream",
        "invalid_type",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"stop":["a","b","c","d","e"]}',
        (
            "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length 5 "
            "instead."
        ),
        "stop",
        "array_above_max_length",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"stop":["a","' + LONG + b'"]}',
        (
            "Invalid 'stop[1]': string too long. Expected a string with maximum length 256, but got a string with "
            "length 300 instead."
        ),
        "stop[1]",
        "string_above_max_length",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"model":"' + LONG + b'"}',
        (
            "Invalid 'model': string too long. Expected a string with maximum length 256, but got a string with length "
            "300 instead."
        ),
        "model",
        "string_above_max_length",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"model":"' + LONG + b'","user":"' + b"y" * (1 << 20) + b'"}',
        "Invalid 'model': string too long. Expected a string with maximum length 256.",
        "model",
        "string_above_max_length",
    ),
    (
        COMPLETION_REQUEST,
        b'{"best_of":21}',
        "Invalid 'best_of': integer above maximum value. Expected a value <= 20, but got 21 instead.",
        "best_of",
        "integer_above_max_value",
    ),
    (
        RESPONSES_REQUEST,
        b'{"temperature":"hot"}',
        "Invalid type for 'temperature': expected a decimal, got a string.",
        "temperature",
        "invalid_type",
    ),
    (
        RESPONSES_REQUEST,
        b'{"conversation":5}',
        "Invalid type for 'conversation': expected a string or an object, got an integer.",
        "conversation",
        "invalid_type",
    ),
    (
        RESPONSES_REQUEST,
        b'{"conversation":{}}',
        "Missing required parameter: 'conversation.id'.",
        "conversation.id",
        "missing_required_parameter",
    ),
    (
        CONVERSATION_REQUEST,
        b'{"metadata":{"a":"b","c":1.5}}',
        "Invalid type for 'metadata.c': expected a string, got a decimal.",
        "metadata.c",
        "invalid_type",
    ),
    (
        CONVERSATION_REQUEST,
        b'{"metadata":{"a":1},"items":',
        "Invalid type for 'metadata': expected a string, got an integer.",
        "metadata",
        "invalid_type",
    ),
    (
        CONVERSATION_REQUEST,
        b'{"metadata":{"a":1},"metadata":{"a":"b"}}',
        "Invalid type for 'metadata': expected a string, got an integer.",
        "metadata",
        "invalid_type",
    ),
    (
        IMAGE_REQUEST,
        b'{"images":[{"image_url":[]}]}',
        "Invalid type for 'images[0].image_url': expected a string, got an array.",
        "images[0].image_url",
        "invalid_type",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b"[]",
        "Invalid type for the request body: expected an object, got an array.",
        None,
        "invalid_type",
    ),
    (CHAT_OR_INPUT_REQUEST, b"", "The request body is empty. Send a JSON object.", None, None),
    (CHAT_OR_INPUT_REQUEST, b" \r\n", "The request body is empty. Send a JSON object.", None, None),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"messages":',
        "The request body is not valid JSON: it ends in the middle of a value, after 12 bytes.",
        None,
        None,
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"a" 1}',
        "The request body is not valid JSON: expected ':' near line 1, column 6.",
        None,
        None,
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"user":"\xff"}',
        "The request body is not valid UTF-8: invalid bytes at line 1, column 10.",
        None,
        None,
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"user":"\\ud83d\\ude00 \\ud83d"}',
        "The request body is not valid JSON: unpaired surrogate at line 1, column 23.",
        None,
        None,
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b"[" * 100_000,
        "Invalid type for the request body: expected an object, got an array.",
        None,
        "invalid_type",
    ),
    (
        CHAT_OR_INPUT_REQUEST,
        b'{"a":' * 100_000,
        "The request body is nested too deeply.",
        None,
        None,
    ),
]


@pytest.mark.parametrize(
    ("decoder", "body", "message", "param", "code"),
    FAILURES,
    ids=[f"{number} {code}" for number, (*_, code) in enumerate(FAILURES)],
)
def test_failures(
    decoder: msgspec.json.Decoder[Any], body: bytes, message: str, param: str | None, code: str | None
) -> None:
    error = failure(body, decoder)
    assert (error.message, error.param, error.code) == (message, param, code)
    assert error.status == 400


# Parts of a request, at ``input[2].content``; the message and the param.
PARTS: list[tuple[bytes, str, str]] = [
    (
        b"7",
        "Invalid type for 'input[2].content': expected a string or an array, got an integer.",
        "input[2].content",
    ),
    (
        b'[{"text":7}]',
        "Invalid type for 'input[2].content[0].text': expected a string, got an integer.",
        "input[2].content[0].text",
    ),
    (
        b'"\xff"',
        "The value of 'input[2].content' is not valid UTF-8: invalid bytes at line 1, column 2.",
        "input[2].content",
    ),
    (
        b'"\\x"',
        (
            "The value of 'input[2].content' is not valid JSON: invalid escape character in string near line 1, "
            "column 4."
        ),
        "input[2].content",
    ),
]


@pytest.mark.parametrize(("part", "message", "param"), PARTS)
def test_failures_of_a_part(part: bytes, message: str, param: str) -> None:
    error = failure(part, ITEM_TEXT, at="input[2].content")
    assert (error.message, error.param) == (message, param)


def test_failures_of_a_form() -> None:
    fields = {"prompt": "a cat", "n": "many"}
    with pytest.raises(UNREADABLE) as caught:
        msgspec.convert(fields, ImageRequest, strict=False)
    error = unreadable_request(caught.value, fields, ImageRequest)
    assert error.message == "Invalid type for 'n': expected an integer, got a string."


class Sound(Struct, tag="sound"):
    data: str = ""


class Image(Struct, tag="image"):
    url: str = ""
    scale: int = 1


class Bounded(Struct):
    ratio: Annotated[float, Meta(ge=0, le=2)] | None = None
    words: Annotated[str, Meta(min_length=3)] | None = None
    name: Annotated[str, Meta(min_length=1)] | None = None
    row: Annotated[list[int], Meta(min_length=1)] | None = None
    least: Annotated[dict[str, int], Meta(min_length=2)] | None = None
    most: Annotated[dict[str, int], Meta(max_length=1)] | None = None
    short: dict[Annotated[str, Meta(max_length=2)], int] | None = None
    even: Annotated[int, Meta(multiple_of=2)] | None = None
    nothing: None = None
    parts: list[Sound | Image] | None = None
    pair: tuple[int, int] | None = None
    table: list[dict[str, list[int]]] | None = None


# Bodies of ``Bounded``; the message and the code.
BOUNDS: list[tuple[bytes, str, str]] = [
    (
        b'{"ratio":3}',
        "Invalid 'ratio': decimal above maximum value. Expected a value <= 2, but got 3 instead.",
        "decimal_above_max_value",
    ),
    (
        b'{"ratio":-0.5}',
        "Invalid 'ratio': decimal below minimum value. Expected a value >= 0, but got -0.5 instead.",
        "decimal_below_min_value",
    ),
    (
        b'{"words":"ab"}',
        (
            "Invalid 'words': string too short. Expected a string with minimum length 3, but got a string with length "
            "2 instead."
        ),
        "string_below_min_length",
    ),
    (
        b'{"name":""}',
        "Invalid 'name': empty string. Expected a string with minimum length 1, but got an empty string instead.",
        "empty_string",
    ),
    (
        b'{"row":[]}',
        "Invalid 'row': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        "empty_array",
    ),
    (
        b'{"least":{"a":1}}',
        (
            "Invalid 'least': too few properties. Expected an object with at least 2 properties, but got an object "
            "with 1 properties instead."
        ),
        "object_below_min_properties",
    ),
    (
        b'{"most":{"a":1,"b":2}}',
        (
            "Invalid 'most': too many properties. Expected an object with at most 1 properties, but got an object with "
            "2 properties instead."
        ),
        "object_above_max_properties",
    ),
    (
        b'{"short":{"abc":1}}',
        "Invalid 'short': string too long. Expected a string with maximum length 2.",
        "string_above_max_length",
    ),
    (b'{"even":3}', "Invalid value for 'even'. Send one that the API reference allows there.", "invalid_value"),
    (
        b'{"parts":[{"type":"smell"}]}',
        "Invalid value: 'smell'. Supported values are: 'sound' and 'image'.",
        "invalid_value",
    ),
    (b'{"parts":[{"type":7}]}', "Invalid type for 'parts[0].type': expected a string.", "invalid_type"),
    (
        b'{"parts":[{"type":"image","scale":"x"}]}',
        "Invalid type for 'parts[0].scale': expected an integer, got a string.",
        "invalid_type",
    ),
    (b'{"pair":[1,"x"]}', "Invalid type for 'pair[1]': expected an integer, got a string.", "invalid_type"),
    (b'{"nothing":3}', "Invalid type for 'nothing': expected null, got an integer.", "invalid_type"),
    (
        b'{"table":[{"a":[1],"b":[2,"c"]}]}',
        "Invalid type for 'table[0].b[1]': expected an integer, got a string.",
        "invalid_type",
    ),
]


@pytest.mark.parametrize(("body", "message", "code"), BOUNDS)
def test_limits_of_every_kind(body: bytes, message: str, code: str) -> None:
    error = failure(body, msgspec.json.Decoder(Bounded))
    assert (error.message, error.code) == (message, code)


def test_an_unknown_length() -> None:
    limit = Limit("object", of_length=True, operator="<=", limit="2")
    assert (
        invalid_length("a", limit).message
        == "Invalid 'a': too many properties. Expected an object with at most 2 properties."
    )


def test_lengths() -> None:
    assert too_long("user", "abc", 2).code == "string_above_max_length"
    assert too_long("metadata", {"a": "", "b": ""}, 1).code == "object_above_max_properties"
    assert empty_value("prompt", "").code == "empty_string"
    assert empty_value("messages", []).code == "empty_array"


@pytest.mark.parametrize(("value", "code"), [(0, "integer_below_min_value"), (11, "integer_above_max_value")])
def test_ranges(value: int, code: str) -> None:
    check_range("n", 1, 1, 10)
    check_range("n", 10, 1, 10)
    with pytest.raises(InvalidRequest) as caught:
        check_range("n", value, 1, 10)
    assert (caught.value.param, caught.value.code) == ("n", code)


def test_an_unknown_actual_type() -> None:
    assert invalid_type("a", ("str",)).message == "Invalid type for 'a': expected a string."


def test_a_value_without_alternatives() -> None:
    assert invalid_value("a", "b").message == "Invalid value: 'b'."


@pytest.mark.parametrize(
    ("words", "joined"), [([], ""), (["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")]
)
def test_joined_words(words: list[str], joined: str) -> None:
    assert join_words(words, "or") == joined


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("", ""),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64 + "…"),
        ("Bearer app-0123456789", "Bearer ***"),
        ("x" * 60 + " sk-0123456789abcdef", "x" * 60 + " sk-…"),
        ("x" * 990 + " app-0123456789", "x" * 64 + "…"),
    ],
)
def test_quoted_values(value: str, quoted: str) -> None:
    assert quotable(value) == quoted
