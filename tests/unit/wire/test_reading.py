"""The wording of msgspec's errors is no interface of it: these are real ones, with what is read from them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Struct

from openai_dify_proxy.wire.reading import UNREADABLE, Misfit, read_misfit


class Part(Struct):
    kind: str
    size: int = 0


class Whole(Struct):
    name: str
    parts: list[Part] = []
    labels: dict[str, int] = {}
    sizes: list[int] = []


# The body; what is wrong with it, where, and the parameter that OpenAI's error names.
MISFITS: dict[str, tuple[str, Misfit, str | None]] = {
    "a field is missing": (
        "{}",
        Misfit("Object missing required field `name`", "", "name"),
        "name",
    ),
    "a field of a part is missing": (
        '{"name": "a", "parts": [{}]}',
        Misfit("Object missing required field `kind`", ".parts[0]", "kind"),
        "parts[0].kind",
    ),
    "a type": ('{"name": 1}', Misfit("Expected `str`, got `int`", ".name"), "name"),
    "a type of a part": (
        '{"name": "a", "parts": [{"kind": "b"}, {"kind": "c", "size": "d"}]}',
        Misfit("Expected `int`, got `str`", ".parts[1].size"),
        "parts[1].size",
    ),
    "an item": ('{"name": "a", "sizes": [1, "b"]}', Misfit("Expected `int`, got `str`", ".sizes[1]"), "sizes[1]"),
    "a value of a mapping": (
        '{"name": "a", "labels": {"b": "c"}}',
        Misfit("Expected `int`, got `str`", ".labels[...]"),
        "labels",
    ),
    "the whole": ("[]", Misfit("Expected `object`, got `array`", ""), None),
    "no JSON": ("{,}", Misfit("JSON is malformed: object keys must be strings (byte 1)"), None),
    "nothing": ("", Misfit("Input data was truncated", ""), None),
}


@pytest.mark.parametrize(("body", "misfit", "param"), MISFITS.values(), ids=MISFITS)
def test_misfits(body: str, misfit: Misfit, param: str | None) -> None:
    with pytest.raises(UNREADABLE) as raised:
        msgspec.json.decode(body, type=Whole)
    assert read_misfit(raised.value) == misfit
    assert misfit.param == param


@pytest.mark.parametrize(
    ("values", "misfit"),
    [
        ({}, Misfit("Object missing required field `name`", "", "name")),
        ({"name": "a", "sizes": ["b"]}, Misfit("Expected `int`, got `str`", ".sizes[0]")),
    ],
)
def test_misfits_of_converted_values(values: dict[str, Any], misfit: Misfit) -> None:
    with pytest.raises(UNREADABLE) as raised:
        msgspec.convert(values, Whole, strict=False)
    assert read_misfit(raised.value) == misfit
