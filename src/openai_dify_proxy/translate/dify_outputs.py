"""A workflow's outputs as the text of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import json

PREFERRED = ("text", "answer", "result", "output", "content")


def answer_of_outputs(outputs: Mapping[str, Any], variable: str | None) -> str:
    """The output named ``variable``, else the only text, else the best-named one, else all of them as JSON."""
    if not outputs:
        return ""
    if variable is not None and variable in outputs:
        return _text(outputs[variable])
    texts = [value for value in outputs.values() if isinstance(value, str)]
    if len(texts) == 1:
        return texts[0]
    for name in PREFERRED:
        if isinstance(outputs.get(name), str):
            return str(outputs[name])
    if len(outputs) == 1:
        return _text(next(iter(outputs.values())))
    return _text(outputs)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.encode(value).decode()
