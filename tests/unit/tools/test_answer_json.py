"""Find the JSON in an answer, and repair its syntax."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from openai_dify_proxy.tools.answer_json import MAX_SEARCHED, json_in, repaired
from openai_dify_proxy.tools.schemas import compile_schema

ANSWERS: list[tuple[str, str | None]] = [
    ('{"a":  1}', '{"a":  1}'),
    ('\n {"a": 1}\n', '{"a": 1}'),
    ("[1, 2]", "[1, 2]"),
    ("5", "5"),
    ('```json\n{"a": 1}\n```', '{"a": 1}'),
    ('```\n{"a": 1}\n```', '{"a": 1}'),
    ('```json {"a": 1}```', '{"a": 1}'),
    ('```json5\r\n{"a": 1}\r\n```', '{"a": 1}'),
    ('Here it is:\n```json\n{"a": "```x```"}\n```\nThat is all.', '{"a": "```x```"}'),
    ('```python\nx = 1\n```\nand\n```json\n{"a": 1}\n```', '{"a": 1}'),
    ('Sure! {"a": {"b": "}"}} Hope it helps {really}.', '{"a": {"b": "}"}}'),
    ('As [1] says: {"a": 1}', '{"a": 1}'),
    ('Here: [{"a": 1}, {"b": 2}]', '[{"a": 1}, {"b": 2}]'),
    ('Use { to open: {"a": "\\"}"}.', '{"a": "\\"}"}'),
    ('{"a": 1} and {"b": 2}', '{"a": 1}'),
    ('{"a"} is no JSON, {"b": 2} is', '{"b": 2}'),
    ('```json\n{"a": 1,}\n```', '{"a":1}'),
    ('```json\n{"a": [1, 2],', None),
    ('```json\n{"a": [1, 2]', '{"a":[1,2]}'),
    ('It is {"a": "b"', '{"a":"b"}'),
    ("I cannot do that.", None),
    ("```\nno JSON\n```", None),
    ("", None),
    ("{", None),
]


@pytest.mark.parametrize(("answer", "found"), ANSWERS)
def test_json_in_an_answer(answer: str, found: str | None) -> None:
    assert json_in(answer) == found


def test_the_part_that_fits_the_schema_is_meant() -> None:
    validator = compile_schema(b'{"type": "object", "required": ["b"], "properties": {"b": {"type": "integer"}}}')
    assert json_in('{} or {"b": "x"} or {"b": 1}', validator) == '{"b": 1}'
    assert json_in('[1] or {"b": "x"}', validator) == '{"b": "x"}'
    assert json_in('Answer: {"b": 1,}', validator) == '{"b":1}'
    assert json_in('Answer: {"b": 1,', validator) is None
    assert json_in('Answer: {"b": 1, "c": []', validator) == '{"b":1,"c":[]}'
    assert json_in('{"b": "x",}', validator) is None


REPAIRS: list[tuple[str, Any]] = [
    ('{"a": 1,}', {"a": 1}),
    ('["a", "b",]', ["a", "b"]),
    ('{"a": "x\ny\tz"}', {"a": "x\ny\tz"}),
    ('{"a": "c:\\path"}', {"a": "c:\\path"}),
    ('{"a": "it\\\'s"}', {"a": "it's"}),
    ('{"a": "\\u00e9\\n"', {"a": "é\n"}),
    ('{"a": {"b": ["c"', {"a": {"b": ["c"]}}),
    ('{"a": true', {"a": True}),
    ('{"a": null', {"a": None}),
    ('{"a": [1, 2}', {"a": [1, 2]}),
    ('{"a": 1}}', {"a": 1}),
    ("{'a': 'b'}", {"a": "b"}),
    ("{a: 1}", {"a": 1}),
    ('{a: "it\'s"}', {"a": "it's"}),
    ('{"a": True, "b": False, "c": None}', {"a": True, "b": False, "c": None}),
    ('{"a": 1 "b": 2}', {"a": 1, "b": 2}),
    ("{“a”: “b”}", {"a": "b"}),
    ('{"a": "say "hi" now"}', {"a": 'say "hi" now'}),
    ('{"code": "print("a")\nx = "b""}', {"code": 'print("a")\nx = "b"'}),
    ("{'a': ''}", {"a": ""}),
]


@pytest.mark.parametrize(("text", "value"), REPAIRS)
def test_repairs(text: str, value: Any) -> None:
    result = repaired(text)
    assert result is not None
    assert json.loads(result) == value


NOT_REPAIRED = [
    # Truncated: the rest is unknown.
    '{"a": ',
    '{"a": "b',
    '{"a": 12',
    '{"a": tru',
    '{"a"',
    '{"a": "b", "',
    '{"a": "b", ',
    '{"code": "f() { return 1; }',
    # A value is missing, or would be lost.
    '{"a": }',
    '{"a": , "b": 1}',
    '{"a": "b" "c"}',
    '{"a": "b", // note\n "c": 1}',
    # Values that JSON does not have.
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": 007}',
    # It is unclear which quotes belong to the value.
    "{'a': 'it's'}",
    # Another spelling of JSON, or none.
    '｛"a": 1｝',
    "a: 1",
    "{\\}",
    "[" * 450 + "a" + "]" * 450,
    "",
    "}",
]


@pytest.mark.parametrize("text", NOT_REPAIRED)
def test_nothing_is_made_up(text: str) -> None:
    assert repaired(text) is None


def test_valid_json_is_unchanged() -> None:
    assert repaired(b' {"a":  1}\n') == '{"a":  1}'


def test_the_result_fits_the_schema() -> None:
    validator = compile_schema(b'{"type": "object", "properties": {"a": {"type": "integer"}}}')
    assert repaired('{"a": 1,}', validator) == '{"a":1}'
    assert repaired('{"a": "x",}', validator) is None
    assert repaired('{"a": "x"}', validator) is None


@pytest.mark.parametrize(
    "part", ["[", '"', '{"a":', "'", "{'", "[{", "```{", '{"', '{"a"}', "{ ", "\\", "[1,", "{(", "```"]
)
def test_hostile_answers_are_refused_at_once(part: str) -> None:
    # The library takes 12 s for 16,384 characters of some of these, and fails on the nesting of others.
    for length in (4_096, MAX_SEARCHED):
        text = part * (length // len(part))
        assert json_in(text) is None
        assert repaired(text) is None
        assert repaired(f"{{{text}}}") is None


def _steps(text: str) -> int:
    """Return the number of calls that the search for JSON makes."""
    steps = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        json_in(text)
    finally:
        sys.setprofile(None)
    return steps


@pytest.mark.parametrize("part", ["[", '{"a":', "{'", '{"a"}', "[1,", "{}x", '```{"a"}', 'x {"a": 1 ', "word "])
def test_twice_the_answer_takes_twice_the_steps(part: str) -> None:
    short = part * (16_384 // len(part))
    assert _steps(short * 2) <= 2 * _steps(short) + 50


def test_long_json_is_found_if_it_is_whole_or_fenced() -> None:
    long = json.dumps({"a": "x" * MAX_SEARCHED})
    assert json_in(long) == long
    assert json_in(f"Here:\n```json\n{long}\n```\nDone.") == long
    assert json_in(f"Here: {long}.") is None


def test_only_the_first_code_blocks_are_read() -> None:
    assert json_in("```\nx\n```\n" * 1_000 + 'y ```json\n{"a": 1}\n``` ```') == '{"a": 1}'


def test_text_with_lone_surrogates_is_no_json() -> None:
    assert json_in('"\ud800"') is None
