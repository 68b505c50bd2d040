from __future__ import annotations

from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.translate.dify.outputs import answer_of_outputs

FILE = {"dify_model_identity": "__dify__file__", "type": "image", "url": "/files/cat.png?sign=s", "filename": "cat.png"}

# Outputs, the configured variable, the text: the configured output, the only text, the best-named one, or JSON.
CASES: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "none": ({}, None, ""),
    "none, though one is configured": ({}, "report", ""),
    "the only text": ({"result": "Bonjour", "count": 3}, None, "Bonjour"),
    "the configured one": ({"text": "a", "report": "b"}, "report", "b"),
    "the configured one as JSON": ({"text": "a", "report": {"n": [1, 2]}}, "report", '{"n":[1,2]}'),
    "the configured one is null": ({"text": "a", "report": None}, "report", ""),
    "the configured one is not there": ({"text": "a"}, "report", "a"),
    "best-named: text": ({"content": "c", "answer": "a", "text": "t"}, None, "t"),
    "best-named: answer": ({"content": "c", "result": "r", "answer": "a"}, None, "a"),
    "best-named: result": ({"output": "o", "result": "r"}, None, "r"),
    "best-named: output": ({"content": "c", "output": "o"}, None, "o"),
    "best-named: content": ({"x": "x", "content": "c"}, None, "c"),
    "a best-named one that is no text is passed over": ({"text": 1, "a": "a", "content": "c"}, None, "c"),
    "several without a name": ({"a": "x", "b": "y"}, None, '{"a":"x","b":"y"}'),
    "a number alone": ({"n": 7}, None, "7"),
    "null alone": ({"n": None}, None, ""),
    "an array alone": ({"list": ["ä", "b"]}, None, '["ä","b"]'),
    "numbers": ({"n": 7, "m": 8.5}, None, '{"n":7,"m":8.5}'),
    "an empty text": ({"text": "", "n": 1}, None, ""),
    "an empty array": ({"list": []}, None, "[]"),
    "a file, which is linked elsewhere": ({"image": FILE}, None, ""),
    "files and a number": ({"images": [FILE, FILE], "n": 7}, None, "7"),
    "the configured one is a file": ({"image": FILE, "text": "Here."}, "image", ""),
    "an array that holds more than files": ({"list": [FILE, 1]}, None, json.encode([FILE, 1]).decode()),
}


@pytest.mark.parametrize(("outputs", "variable", "text"), CASES.values(), ids=CASES)
def test_outputs_as_text(outputs: dict[str, Any], variable: str | None, text: str) -> None:
    assert answer_of_outputs(outputs, variable) == text
