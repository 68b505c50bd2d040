"""Types that the demo's model reads, the values it makes of them, and the bounds of both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy_demo.tool_definitions import Definition, read_answer_type, read_tools
from openai_dify_proxy_demo.type_texts import MAX_NESTING, Type, TypeSyntaxError, read_type
from openai_dify_proxy_demo.type_values import MAX_VALUES, Facts, make_value

HEADER = "Answer with JSON only, which fits this type. Do not explain it.\n"


def value_of(type_text: str, question: str = "") -> Any:
    definition = read_answer_type(HEADER + type_text)
    assert definition is not None
    return make_value(definition, Facts(question))


@pytest.mark.parametrize(
    ("text", "question", "value"),
    [
        ("{}", "", {}),
        ("{ [key: string]: any }", "", {}),
        ("{ city: string; days?: integer }", "the weather in Paris", {"city": "Paris"}),
        ("{ city: string; days?: integer }", "3 days in 'Port Louis'", {"city": "Port Louis", "days": 3}),
        ("{ city: string; days?: integer }", "days=4 city=Rome in Oslo", {"city": "Rome", "days": 4}),
        ("{ city: string; note: string }", "about 'A' and 'B'", {"city": "A", "note": "B"}),
        ("{ note?: string; city: string }", "about 'A'", {"city": "A"}),
        ("{ city: string }", "which one?", {"city": "which one?"}),
        ("{ city: string }", "What's in Brooklyn, NY?", {"city": "Brooklyn, NY"}),
        ("{ city: string }", "Go to Paris. Then rest.", {"city": "Paris"}),
        ("{ city: string }", 'city: "A b"', {"city": "A b"}),
        ("{\n  // The city.\n  city: string // Or { a village }.\n  days?: integer\n}", "'X'", {"city": "X"}),
        ("{ x: number; y: integer }", "1.5 and 2", {"x": 1.5, "y": 2}),
        ("{ y: integer; x: number }", "1.5 and 2", {"y": 2, "x": 1.5}),
        ("{ x: integer }", "version 1.2.3 of 4a", {"x": 1}),
        ("{ x: integer }", "x=-7", {"x": -7}),
        ("{ x: integer[] }", "1, 2.5 and 3", {"x": [1, 3]}),
        ("{ x: string[] }", "'a' and 'b'", {"x": ["a", "b"]}),
        ("{ x: string[] }", "", {"x": ["text"]}),
        ('{ unit: "C" | "F" }', "in F", {"unit": "F"}),
        ('{ unit: "C" | "F" }', "Celsius", {"unit": "C"}),
        ('{ unit?: "C" | "F" }', "", {}),
        ('{ unit: "C" }', "", {"unit": "C"}),
        ("{ unit: string | null; city: string }", "'Rome'", {"unit": None, "city": "Rome"}),
        ("{ unit: string | null }", "unit=C", {"unit": "C"}),
        ("{ on: boolean; off?: boolean }", "off=false", {"on": True, "off": False}),
        ("{ a: { b: { c: integer } } }", "5", {"a": {"b": {"c": 5}}}),
        ("{ people: { name: string; age: integer }[] }", "'Al' is 5", {"people": [{"name": "Al", "age": 5}]}),
        ("{ a: [integer, string, ...any[]] }", "", {"a": [1, "text"]}),
        ("{ a: (integer | string)[] }", "", {"a": [1]}),
        ("{ a: integer } & { b: string }", "1 'x'", {"a": 1, "b": "x"}),
        ('{ "odd name": integer; a: -1; b: 1e-05; c: true }', "", {"odd name": 1, "a": -1, "b": 1e-05, "c": True}),
        ('{ u: Unit }\ntype Unit = "C" | "F"', "F", {"u": "F"}),
        ("{ u: Unit }\nnow({})\ntype Unit = {", "", {"u": "text"}),
        ("Answer\ntype Answer = { next: Answer | null; a: integer }", "2", {"next": None, "a": 2}),
        ("A point.\nWith two lines\n{ x: integer }", "3", {"x": 3}),
        ("integer[]", "1 2", [1, 2]),
        ("string", "'x'", "x"),
    ],
)
def test_values_fit_the_type_and_the_question(text: str, question: str, value: Any) -> None:
    made = value_of(text, question)
    assert made == value
    assert not isinstance(value, dict) or list(made) == list(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{ a }",
        "{ a: }",
        "{ a b: c }",
        "[1",
        "[1 2]",
        '"a',
        "{ a: string ]",
        "|",
        "1.2.3",
        "...",
        "(a",
        "a[",
        "//",
    ],
)
def test_a_text_that_is_no_type(text: str) -> None:
    with pytest.raises(TypeSyntaxError):
        read_type(text)


def test_tools_are_found_among_other_text() -> None:
    tools = read_tools(
        "You can call these tools.\n\n"
        "// Looks like other(\n"
        "get_weather({\n  city: string // The city (or village).\n  unit?: Unit\n})\n"
        'type Unit = "C" | "F"\n\n'
        "now({})\n\n"
        "apply_patch(free text)\nThe text follows this grammar:\nstart: line+\n\n"
        "ns.read-file({ path: string })\n\n"
        "broken({ path: )\n"
        "open({ path: string }\n"
        "prose(as it is)\n"
        "any_value(any)\n"
    )
    assert list(tools) == ["get_weather", "now", "apply_patch", "ns.read-file", "any_value"]
    assert tools["apply_patch"] is None
    weather = tools["get_weather"]
    assert weather is not None
    assert weather.named == {"Unit": Type("union", parts=(Type("literal", "C"), Type("literal", "F")))}
    assert weather.type.members == {"city": (Type("name", "string"), True), "unit": (Type("name", "Unit"), False)}


def test_named_types_belong_to_their_tool() -> None:
    tools = read_tools("a({ x: T })\ntype T = 1\n\nb({ x: T })\ntype T = 2\n")
    assert [make_value(kind, Facts("")) for kind in tools.values() if kind] == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize("text", ["", "no type", HEADER, f"{HEADER}Only prose here.\nAnd here"])
def test_a_text_without_an_answer_type(text: str) -> None:
    assert read_answer_type(text) is None


SELF = "{ a: Node; b: Node; c: Node }"


@pytest.mark.parametrize(
    "named",
    [
        {"Node": SELF},
        {"Node": "Node"},
        {"Node": "Other", "Other": "Node"},
        {"Node": "(Node)[]"},
        {"Node": "[Node, Node, Node]"},
        {"Node": "{ a: Node } | { b: Node }"},
    ],
)
def test_types_that_refer_to_themselves_end(named: dict[str, str]) -> None:
    definition = Definition(read_type(SELF)[0], {name: read_type(text)[0] for name, text in named.items()})
    assert count(make_value(definition, Facts("x"))) <= 4 * MAX_VALUES


def count(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count, parts))


@given(st.text(alphabet='{}[]()|&?:;,.\n "/\\aTx1-') | st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    read_tools(f"a({text}\nb({{}})")
    read_answer_type(HEADER + text)
    Facts(text)


def steps(work: Callable[[], object]) -> int:
    """Return how many lines of Python a call executes."""
    executed = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal executed
        executed += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return executed


@pytest.mark.parametrize(
    "part",
    [
        "a({\n",
        "a({ b: ",
        "{ b: {",
        "a({ x: 1 }\n",
        "type A = {\n",
        '"',
        '"x',
        "(",
        "[",
        "a(b\n",
        "x\n",
        "{\n",
        "any |\n",
    ],
)
def test_reading_takes_linear_time(part: str) -> None:
    for read in (read_tools, read_answer_type):
        few, many = (steps(partial(read, HEADER + part * times)) for times in (200, 800))
        assert many <= 5 * few + 100


def test_the_depth_of_types_is_bounded() -> None:
    deep = "{ a: " * (MAX_NESTING - 2) + "1" + " }" * (MAX_NESTING - 2)
    assert read_type(deep)[1] == len(deep)
    with pytest.raises(TypeSyntaxError):
        read_type("{ a: " * 10_000)
