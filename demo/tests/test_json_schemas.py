"""The JSON that a question itself asks for."""

from __future__ import annotations

import json

import pytest

from openai_dify_proxy_demo.tool_model import tool_answer
from openai_dify_proxy_demo.tool_prompts import read_prompt

SCHEMA = {
    "$defs": {"Place": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "days": {"type": "integer"},
        "pace": {"enum": ["slow", "fast"]},
        "kind": {"const": "trip"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "nothing": {"type": "null"},
        "home": {"$ref": "#/$defs/Place"},
        "places": {"type": "array", "items": {"$ref": "#/$defs/Place"}},
        "more": {"type": "string"},
    },
    "required": ["title", "days", "pace", "kind", "note", "nothing", "home", "places"],
}


def answer(question: str) -> str | None:
    return tool_answer(read_prompt(question, {}, []))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_schema_in_the_question(indent: int | None) -> None:
    question = (
        f"Answer in JSON of this schema:\n  {json.dumps(SCHEMA, indent=indent)}\n\nA trip: days=3, pace=fast, title=Sea"
    )
    text = answer(question)
    assert text is not None
    value = json.loads(text)
    assert value | {"home": 0, "places": 0} == {
        "title": "Sea",
        "days": 3,
        "pace": "fast",
        "kind": "trip",
        "note": None,
        "nothing": None,
        "home": 0,
        "places": 0,
    }
    assert set(value["home"]) == {"name"}


@pytest.mark.parametrize(
    "question",
    ["What is JSON?", 'JSON\n{"properties": 1}', 'JSON\n{"properties": {', 'What is this?\n{"properties": {}}'],
)
def test_no_schema(question: str) -> None:
    assert answer(question) is None


def test_quoted_keys() -> None:
    question = (
        "Return a JSON with 'setup' and 'punchline' keys.\n\n<instructions>\n"
        "Answer with one JSON object only.\n</instructions>"
    )
    text = answer(question)
    assert text is not None
    assert set(json.loads(text)) == {"setup", "punchline"}
