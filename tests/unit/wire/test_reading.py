"""Parse real error messages of msgspec, whose wording is not a documented interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from openai_dify_proxy.wire.reading import (
    ANY_KEY,
    UNREADABLE,
    Limit,
    Mismatch,
    MissingField,
    NumberTooLarge,
    SyntaxFault,
    UnknownValue,
    WrongType,
    read_mismatch,
)


class Text(Struct, tag="text"):
    text: str = ""


class Image(Struct, tag="image"):
    url: str = ""


class Part(Struct):
    kind: str
    size: int = 0


class Whole(Struct):
    name: str
    parts: list[Part] = []
    labels: dict[str, int] = {}
    short: dict[Annotated[str, Meta(max_length=2)], int] = {}
    sizes: list[int] = []
    either: str | list[str] | None = None
    color: Literal["red", "green"] | None = None
    level: Literal[1, 2] | None = None
    union: Text | Image | None = None
    count: Annotated[int, Meta(ge=1, le=9)] | None = None
    even: Annotated[int, Meta(multiple_of=2)] | None = None
    ratio: Annotated[float, Meta(gt=0, lt=2)] | None = None
    words: Annotated[str, Meta(min_length=2, max_length=4)] | None = None
    row: Annotated[list[int], Meta(min_length=1, max_length=2)] | None = None
    table: Annotated[dict[str, int], Meta(max_length=1)] | None = None


# The body, and the parsed error.
MISMATCHES: dict[str, tuple[str, Mismatch]] = {
    "a missing field": ("{}", Mismatch(MissingField("name"))),
    "a missing field of a part": ('{"name":"a","parts":[{}]}', Mismatch(MissingField("kind"), ("parts", 0))),
    "a type": ('{"name":1}', Mismatch(WrongType(("str",), "int"), ("name",))),
    "a type of a part": (
        '{"name":"a","parts":[{"kind":"b"},{"kind":"c","size":"d"}]}',
        Mismatch(WrongType(("int",), "str"), ("parts", 1, "size")),
    ),
    "an item": ('{"name":"a","sizes":[1,"b"]}', Mismatch(WrongType(("int",), "str"), ("sizes", 1))),
    "a value of a mapping": (
        '{"name":"a","labels":{"b":"c"}}',
        Mismatch(WrongType(("int",), "str"), ("labels", ANY_KEY)),
    ),
    "a key of a mapping": ('{"short":{"abc":1}}', Mismatch(Limit("str", True, "<=", "2"), ("short",))),
    "a type out of several": ('{"either":1.5}', Mismatch(WrongType(("str", "array", "null"), "float"), ("either",))),
    "a boolean": ('{"name":true}', Mismatch(WrongType(("str",), "bool"), ("name",))),
    "null": ('{"name":null}', Mismatch(WrongType(("str",), "null"), ("name",))),
    "the whole": ("[]", Mismatch(WrongType(("object",), "array"))),
    "a type of a tag": ('{"union":{"type":5}}', Mismatch(WrongType(("str",)), ("union", "type"))),
    "a word": ('{"color":"blue"}', Mismatch(UnknownValue("'blue'"), ("color",))),
    "a word with marks": (
        '{"color":"it\'s - at `$.x`\\n"}',
        Mismatch(UnknownValue('"it\'s - at `$.x`\\n"'), ("color",)),
    ),
    "a number out of several": ('{"level":3}', Mismatch(UnknownValue("3"), ("level",))),
    "a tag": ('{"union":{"type":"sound"}}', Mismatch(UnknownValue("'sound'"), ("union", "type"))),
    "too small": ('{"count":0}', Mismatch(Limit("int", False, ">=", "1"), ("count",))),
    "too large": ('{"count":10}', Mismatch(Limit("int", False, "<=", "9"), ("count",))),
    "much too large": (f'{{"count":{10**30}}}', Mismatch(Limit("int", False, "<=", "9"), ("count",))),
    "at an open lower end": ('{"ratio":0}', Mismatch(Limit("float", False, ">", "0.0"), ("ratio",))),
    "at an open upper end": ('{"ratio":2.5}', Mismatch(Limit("float", False, "<", "2.0"), ("ratio",))),
    "too short a string": ('{"words":"a"}', Mismatch(Limit("str", True, ">=", "2"), ("words",))),
    "too long a string": ('{"words":"abcde"}', Mismatch(Limit("str", True, "<=", "4"), ("words",))),
    "too short an array": ('{"row":[]}', Mismatch(Limit("array", True, ">=", "1"), ("row",))),
    "too long an array": ('{"row":[1,2,3]}', Mismatch(Limit("array", True, "<=", "2"), ("row",))),
    "too large an object": ('{"table":{"a":1,"b":2}}', Mismatch(Limit("object", True, "<=", "1"), ("table",))),
    "no double": ('{"count":1e999}', Mismatch(NumberTooLarge(), ("count",))),
    "no integer of Python's": ('{"count":' + "9" * 5000 + "}", Mismatch(NumberTooLarge(), ("count",))),
    "of no known reason": ('{"even":3}', Mismatch(None, ("even",))),
    "no JSON": ("{,}", Mismatch(SyntaxFault("object keys must be strings", 1))),
    "nothing": ("", Mismatch(None)),
    "half of it": ('{"name":', Mismatch(None)),
}


@pytest.mark.parametrize(("body", "mismatch"), MISMATCHES.values(), ids=MISMATCHES)
def test_mismatches(body: str, mismatch: Mismatch) -> None:
    with pytest.raises(UNREADABLE) as raised:
        msgspec.json.decode(body, type=Whole)
    assert read_mismatch(raised.value) == mismatch


@pytest.mark.parametrize(
    ("values", "mismatch"),
    [
        ({}, Mismatch(MissingField("name"))),
        ({"name": "a", "sizes": ["b"]}, Mismatch(WrongType(("int",), "str"), ("sizes", 0))),
    ],
)
def test_mismatches_of_converted_values(values: dict[str, Any], mismatch: Mismatch) -> None:
    with pytest.raises(UNREADABLE) as raised:
        msgspec.convert(values, Whole, strict=False)
    assert read_mismatch(raised.value) == mismatch
