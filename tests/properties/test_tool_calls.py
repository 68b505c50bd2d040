"""Compare the parser of calls over any split of the text, and with the calls that were written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openai_dify_proxy.tools.json_scanner import JsonScanner
from openai_dify_proxy.tools.spellings import LESS
from tests.call_parsing import Parsed, parse
from tests.properties.strategies import json_values, texts

CITY = '{"city": "Paris"}'
FRAGMENTS = [
    "<tool_call>", "</tool_call>", "<tool_calls>", "</TOOL_CALLS>", "<toolcall>", "＜tool_call＞", "＜/tool_call＞",
    "<function_call>", "<function_calls>", "</function_calls>", "<x:function_calls>", "</x:function_calls>",
    "<function=get_weather>", "<function=nothing>", "<function=apply_patch>", "</function>",
    "<function name='get_weather'>",
    '<invoke name="get_weather">', '<x:invoke name="apply_patch">', "</invoke>", "</x:invoke>", "<parameter=city>",
    '<parameter name="days">', "</parameter>", "[TOOL_CALLS]", "[ARGS]", "get_weather", "get-weather", "<|python_tag|>",
    "<|eom_id|>", "```", "```json\n", "\n```\n", "~~~\n", "````", "&lt;tool_call&gt;", "&lt;/tool_call&gt;",
    "&quot;",
    "{&quot;name&quot;: &quot;get_weather&quot;}", '{"name": "get_weather", "arguments": ', '{"name": "apply_patch"}\n',
    '{"tool": "get_weather", "args": {', '{"function": {"name": "get_weather", "parameters": {}}}',
    '{"name": "other", ',
    '{"arguments": {"a": [1, 2,]}, ',
    '"name": "get_weather"}', f'{{"name": "get_weather", "arguments": {CITY}}}', CITY,
    "{'city': 'it', b: True}", '"days": 3', '"{\\"city\\": \\"Rome\\"}"', '"input": "text"', "｛", "｝", "：", "，",
    "{", "}", "[", "]", '"', "'", "\\", "\\u00", ":", ",", "\n", " ", "\t", "<", ">", "＜", "&",
    "/", "1", "-0.5", "nul",
    "null", "True", "NaN", "x", "é", "\u2028", "\x00", "“", "”", "\r\n",
]  # fmt: skip


def _tagged(call: str) -> str:
    return f"<tool_call>{call}</tool_call>"


def _members(name: str, arguments: str, *keys: str) -> str:
    return f'{{"{keys[0]}": "{name}", "{keys[1]}": {arguments}}}'


SPELLINGS: dict[str, Callable[[str, str], str]] = {
    "block": lambda name, written: _tagged(_members(name, written, "name", "arguments")),
    "lines": lambda name, written: f"<TOOL_CALL>\n{_members(name, written, 'tool', 'parameters')}\n</TOOL_CALL>\n",
    "calls": lambda name, written: f"<tool_calls>[{_members(name, written, 'name', 'args')}]</tool_calls>",
    "wide": lambda name, written: f"＜tool_call＞{_members(name, written, 'tool_name', 'input')}＜/tool_call＞",
    "ticks": lambda name, written: _tagged(f"```json\n{_members(name, written, 'name', 'arguments')}\n```"),
    "late name": lambda name, written: _tagged(f'{{"arguments": {written}, "name": "{name}"}}'),
    "nested": lambda name, written: _tagged(f'{{"function": {_members(name, written, "name", "arguments")}}}'),
    "typed": lambda name, written: _tagged(
        f'{{"id": "1", "type": "function", "function": "{name}", "parameters": {written}}}'
    ),
    "string": lambda name, written: _tagged(_members(name, json.dumps(written), "name", "arguments")),
    "unclosed": lambda name, written: f'<tool_call>{{"name": "{name}", "arguments": {written}\n',
    "no brace": lambda name, written: f'<tool_call>{{"name": "{name}", "arguments": {written}</tool_call>',
    "function": lambda name, written: f"<function={name}>{written}</function>",
    "function block": lambda name, written: _tagged(f"\n<function={name}>\n{written}\n</function>\n"),
    "invoke": lambda name, written: (
        f'<x:function_calls><x:invoke name="{name}">{written}</x:invoke></x:function_calls>'
    ),
    "mistral": lambda name, written: f"[TOOL_CALLS] [{_members(name, written, 'name', 'arguments')}]",
    "mistral name": lambda name, written: f"[TOOL_CALLS]{name}{written}",
    "mistral arguments": lambda name, written: f"[TOOL_CALLS]{name}[ARGS]{written}",
    "llama": lambda name, written: f"<|python_tag|>{_members(name, written, 'name', 'parameters')}<|eom_id|>",
}
UNMARKED: dict[str, Callable[[str, str], str]] = {
    "bare": lambda name, written: _members(name, written, "name", "arguments"),
    "fence": lambda name, written: f"```json\n{_members(name, written, 'name', 'arguments')}\n```\n",
    "fenced block": lambda name, written: f"~~~~\n{_tagged(_members(name, written, 'name', 'arguments'))}\n~~~~",
}
XML: dict[str, Callable[[str, dict[str, str]], str]] = {
    "parameters": lambda name, values: (
        f"<function={name}>"
        + "".join(f"<parameter={key}>{value}</parameter>" for key, value in values.items())
        + "</function>"
    ),
    "parameter lines": lambda name, values: _tagged(
        f"\n<function={name}>\n"
        + "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
        + "</function>\n"
    ),
    "invoke parameters": lambda name, values: (
        f'<function_calls><invoke name="{name}">'
        + "".join(f'<parameter name="{key}">{value}</parameter>' for key, value in values.items())
        + "</invoke></function_calls>"
    ),
    "no parameter end": lambda name, values: _tagged(
        f"<function={name}>" + "".join(f"<parameter={key}>{value}" for key, value in values.items()) + "</function>"
    ),
    "no function end": lambda name, values: _tagged(
        f"<function={name}>" + "".join(f"<parameter={key}>{value}</parameter>" for key, value in values.items())
    ),
}

awkward = st.lists(st.sampled_from(FRAGMENTS) | texts, max_size=4).map("".join)
arguments = st.dictionaries(awkward, json_values() | awkward, max_size=3)
styles = st.sampled_from(
    [{}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}, {"separators": (" , ", " : ")}]
)
whole_calls = st.one_of(
    st.builds(
        lambda spell, written: spell("get_weather", written),
        st.sampled_from([*SPELLINGS.values(), *UNMARKED.values()]),
        st.builds(lambda value, style: json.dumps(value, **style), arguments, styles),
    ),
    st.builds(
        lambda spell, value: spell("get_weather", {"city": value, "days": "3"}), st.sampled_from([*XML.values()]), texts
    ),
    awkward.map(lambda text: f'<tool_call>{{"name": "apply_patch"}}\n{text}</tool_call>'),
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Calls with a part that is missing, doubled or replaced."""
    text = draw(st.lists(whole_calls, min_size=1, max_size=2).map("".join))
    for _ in range(draw(st.integers(0, 3))):
        begin, size = draw(st.integers(0, len(text))), draw(st.sampled_from([0, 0, 1, 4, 1000]))
        text = text[:begin] + draw(st.sampled_from(["", *FRAGMENTS]) | texts) + text[begin + size :]
    return text


soup = st.lists(st.sampled_from(FRAGMENTS) | texts, max_size=24).map("".join) | mutated() | mutated()


def splits(data: st.DataObject, text: str) -> list[list[str]]:
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [list(text), [text[begin:end] for begin, end in zip([0, *at], [*at, len(text)], strict=True)]]


@given(soup, st.booleans(), st.data())
def test_any_split_gives_the_same_calls_and_loses_no_text(text: str, forced: bool, data: st.DataObject) -> None:
    parsed = parse([text], forced=forced)
    for pieces in splits(data, text):
        assert parse(pieces, forced=forced) == parsed
    if parsed.calls:
        assert text.startswith(parsed.text)
    else:
        assert parsed.text == text
        assert not parsed.cut


@given(soup, st.sampled_from(["", " \n", "visible"]))
def test_calls_in_reasoning_count_if_nothing_visible_follows(reasoning: str, text: str) -> None:
    alone = parse([reasoning])
    parsed = parse([text], reasoning=reasoning)
    if text == "visible" or alone.truncated:
        assert parsed == Parsed(text)
    else:
        assert parsed.calls == alone.calls
        assert parsed.text == ("" if parsed.calls else text)


prose = st.lists(st.sampled_from(["The weather.", "\n", " ", "é", "a } b", "1, 2", "\u2028"]), max_size=4).map("".join)


@given(st.sampled_from(sorted(SPELLINGS)), prose, arguments, styles, st.data())
def test_arguments_are_passed_on_as_they_were_written(
    spelling: str, before: str, values: dict[str, Any], style: dict[str, Any], data: st.DataObject
) -> None:
    written = json.dumps(values, **style)
    text = before + SPELLINGS[spelling]("get_weather", written)
    expected = Parsed(before if before.strip() else "", (("get_weather", written, True),))
    for pieces in ([text], *splits(data, text)):
        assert parse(pieces) == expected


@given(st.sampled_from(sorted(UNMARKED)), arguments, styles)
def test_json_without_a_mark_is_a_call_if_it_is_the_whole_answer_or_a_call_is_forced(
    spelling: str, values: dict[str, Any], style: dict[str, Any]
) -> None:
    written = json.dumps(values, **style)
    text = UNMARKED[spelling]("get_weather", written)
    calls = (("get_weather", written, True),)
    assert parse([text]) == parse([f"\n{text}\n"]) == parse([text], forced=True) == Parsed("", calls)
    assert parse([f"{text}\nDone."]) == Parsed(f"{text}\nDone.")
    if spelling != "bare" or not set(written) & set("<&＜["):  # no mark within
        assert parse([f"See:\n{text}"]) == Parsed(f"See:\n{text}")
    assert parse([f"See:\n{text}"], forced=True) == Parsed("See:\n", calls)
    assert parse([f"{text}\nDone."], forced=True) == Parsed("", calls, cut=True)


unmarked_texts = st.lists(
    st.sampled_from([fragment for fragment in FRAGMENTS if not set(fragment) & set("<＜")]) | texts, max_size=4
).map(lambda parts: "".join(part for part in parts if not set(part) & set(LESS)).strip("\r\n"))


@given(st.sampled_from(sorted(XML)), unmarked_texts, st.integers(), st.data())
def test_parameters_have_the_types_of_the_schema(spelling: str, city: str, days: int, data: st.DataObject) -> None:
    text = XML[spelling]("get_weather", {"city": city, "days": str(days)})
    parsed = parse([text])
    ((name, written, complete),) = parsed.calls
    assert (name, json.loads(written), complete) == ("get_weather", {"city": city, "days": days}, True)
    for pieces in splits(data, text):
        assert parse(pieces) == parsed


@st.composite
def relaxed(draw: st.DrawFn, value: Any) -> str:
    """Write a value as relaxed JSON."""
    if isinstance(value, str):
        opening, closing = draw(st.sampled_from([("'", "'"), ('"', '"'), ("“", "”"), ("＂", "＂")]))
        escaped = json.dumps(value, ensure_ascii=draw(st.booleans()))[1:-1].replace(
            '\\"', draw(st.sampled_from(['\\"', '"']))
        )
        escaped = escaped.replace('"', '\\"') if opening == '"' and '\\"' not in escaped else escaped
        escaped = escaped.replace(closing, "\\" + closing) if closing != '"' else escaped
        for name, character in (("\\n", "\n"), ("\\t", "\t")):
            if draw(st.booleans()) and "\\\\" not in escaped:
                escaped = escaped.replace(name, character)
        return opening + escaped + closing
    comma = draw(st.sampled_from(["", ",", " , "]))
    if isinstance(value, dict):
        keys = [
            key if key.isidentifier() and key.isascii() and draw(st.booleans()) else draw(relaxed(key)) for key in value
        ]
        members = [
            f"{key}{draw(st.sampled_from(':：'))} {draw(relaxed(item))}"
            for key, item in zip(keys, value.values(), strict=True)
        ]
        return "{" + ", ".join(members) + (comma if members else "") + draw(st.sampled_from("}｝"))
    if isinstance(value, list):
        items = [draw(relaxed(item)) for item in value]
        return draw(st.sampled_from("[［")) + "，".join(items) + (comma if items else "") + "]"
    return draw(st.sampled_from([json.dumps(value), str(value)]))


@given(
    st.data(), st.dictionaries(texts, json_values(), max_size=3), st.sampled_from(sorted(SPELLINGS.keys() - {"string"}))
)
def test_relaxed_json_has_the_meaning_of_strict_json(
    data: st.DataObject, values: dict[str, Any], spelling: str
) -> None:
    text = SPELLINGS[spelling]("get_weather", data.draw(relaxed(values)))
    parsed = parse([text])
    ((name, written, complete),) = parsed.calls
    assert (name, json.loads(written), complete) == ("get_weather", values, True)
    for pieces in splits(data, text):
        assert parse(pieces) == parsed


@given(awkward)
def test_free_text_is_passed_on_unchanged(text: str) -> None:
    assume(not re.search(r"/\s*(tool|function)", text, re.IGNORECASE))
    expected = Parsed("", (("apply_patch", text, True),))
    block = f'<tool_call>{{"name": "apply_patch"}}\n{text}\n</tool_call>'
    assert parse([block]) == parse(block) == expected
    written = json.dumps(text)
    for arguments in (written, f'{{"input": {written}}}'):
        assert parse(SPELLINGS["block"]("apply_patch", arguments)) == expected


@given(arguments, st.data())
def test_nothing_is_made_up_for_arguments_that_are_cut(values: dict[str, Any], data: st.DataObject) -> None:
    written = json.dumps(values)
    text = SPELLINGS["block"]("get_weather", written)
    begin = text.index(written)
    end = data.draw(st.integers(begin + 1, len(text)))
    parsed = parse([text[:end]])
    ((name, sent, complete),) = parsed.calls
    assert name == "get_weather"
    assert parsed.truncated is not complete
    if complete:
        assert sent.startswith(text[begin : min(end, begin + len(written))].rstrip())
        assert set(sent[end - begin :]) <= set("}]")
        json.loads(sent)
    else:
        assert written.startswith(sent)


@given(soup)
def test_accepted_json_is_strict_json(text: str) -> None:
    scanner = JsonScanner()
    end = scanner.scan(text, 0)
    if scanner.done:
        value = json.loads("".join(scanner.out))
        try:
            strict = json.loads(text[:end])
        except ValueError:
            return
        assert json.dumps(value) == json.dumps(strict)


def _steps(text: str, forced: bool) -> int:
    """Count the function calls that it takes to parse the characters of ``text`` one by one."""
    steps = 0

    def profile(*_: object) -> None:
        nonlocal steps
        steps += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        parse(text, forced=forced)
    finally:
        sys.setprofile(before)
    return steps


@pytest.mark.parametrize(
    "fragment", [*FRAGMENTS, "<parameter=a>1</function>", "</parameter> ", "<tool_call>{", "&quot;{"]
)
def test_the_steps_grow_with_the_length_of_the_text(fragment: str) -> None:
    for begin in (
        "",
        '<tool_call>{"name": "get_weather", "arguments": {"a": [',
        "<function=get_weather><parameter=city>",
    ):
        one, three = (_steps(begin + fragment * times, forced=not begin) for times in (10, 30))
        assert three <= 3.5 * one + 500
