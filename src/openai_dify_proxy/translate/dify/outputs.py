"""The outputs of a workflow as the text of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import json

PREFERRED = ("text", "answer", "result", "output", "content")

_IDENTITY, _FILE = "dify_model_identity", "__dify__file__"


def answer_of_outputs(outputs: Mapping[str, Any], variable: str | None) -> str:
    """Return the output ``variable``, else the only text, else one with a preferred name, else all outputs as JSON.

    Files are omitted: they are also in ``workflow_finished.data.files`` and linked from there.
    """
    if variable is not None and variable in outputs:
        return _text(outputs[variable])
    outputs = {name: value for name, value in outputs.items() if not _holds_files(value)}
    if not outputs:
        return ""
    texts = [value for value in outputs.values() if isinstance(value, str)]
    if len(texts) == 1:
        return texts[0]
    for name in PREFERRED:
        if isinstance(outputs.get(name), str):
            return str(outputs[name])
    if len(outputs) == 1:
        return _text(next(iter(outputs.values())))
    return _text(outputs)


def _holds_files(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(item, dict) and item.get(_IDENTITY) == _FILE for item in items)


def _text(value: Any) -> str:
    if value is None or _holds_files(value):
        return ""
    return value if isinstance(value, str) else json.encode(value).decode()
