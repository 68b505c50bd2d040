"""Relaxed JSON becomes strict JSON, and the end of a value is found."""

from __future__ import annotations

import pytest

from openai_dify_proxy.tools.json_scanner import MAX_DEPTH, MAX_WORD, JsonScanner, strict_json


@pytest.mark.parametrize(
    ("written", "strict"),
    [
        ("12", "12"),
        ("-1.5e+3", "-1.5e+3"),
        ("None", "null"),
        ('"a\\u00e9\\n"', '"a\\u00e9\\n"'),
        ("'it\\'s \"x\"'", '"it\'s \\"x\\""'),
        ("“a”", '"a"'),
        ("‘a’", '"a"'),
        ("＂a＂", '"a"'),
        ('"\\d \\u12 \\u00g"', '"\\\\d \\\\u12 \\\\u00g"'),
        ('"\\\n\r\b\f\x01"', '"\\\\\\n\\r\\b\\f\\u0001"'),
        ("{a_1: 1, $b-c.d: 2}", '{"a_1": 1, "$b-c.d": 2}'),
        ("｛'a'：［1，2，］，｝", '{"a":[1,2]}'),
        ("{ }", "{ }"),
        ("[ ]", "[ ]"),
        ('{"a": {}, "b": [[]]}', '{"a": {}, "b": [[]]}'),
        ('{"a"\u3000:\u00a01}', '{"a" : 1}'),
        ('{"a": 1 , }', '{"a": 1  }'),
    ],
)
def test_relaxed_json(written: str, strict: str) -> None:
    assert strict_json(written) == strict
    scanner = JsonScanner()
    for character in [*written, " "]:
        scanner.scan(character, 0)
    assert "".join(scanner.out) == strict


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1", "[1 2]", "{1: 2}", "{a b}", "{a: }", "{,}", "[,]", "{{}: 1}", "[1}", "}",
        "01", "1_0", "NaN", "!",
        '"a" "b"', '"', "{a: nope}", '{"a": 1]', "{-: 1}", "x" * (MAX_WORD + 1), "[" * (MAX_DEPTH + 1),
    ],
)  # fmt: skip
def test_everything_else_is_no_json(text: str) -> None:
    assert strict_json(text) is None


def test_a_scanner_stops_behind_its_value() -> None:
    scanner = JsonScanner()
    assert scanner.scan('{"a": [1]}, {', 0) == 10
    assert scanner.done
    assert scanner.close()
    key = JsonScanner(key=True)
    assert key.scan("name: 1", 0) == 4
    assert key.out == ['"name"']


def test_a_broken_value_is_not_completed() -> None:
    scanner = JsonScanner()
    scanner.scan("[1 2", 0)
    assert scanner.broken
    assert not scanner.close()


def test_literals_end_with_the_text() -> None:
    scanner = JsonScanner()
    scanner.scan("[True", 0)
    assert scanner.close()
    assert "".join(scanner.out) == "[true]"
