"""Every spelling of a call, whole, character by character and in halves."""

from __future__ import annotations

import pytest

from openai_dify_proxy.events import TextDelta, ToolCallDelta, ToolCallFinished, ToolCallStarted
from openai_dify_proxy.tools.envelopes import MAX_REPAIR
from openai_dify_proxy.tools.parsing import MAX_HELD, CallParser
from openai_dify_proxy.translate.turn_request import Tool
from tests.call_parsing import PATCH, TOOLS, WEATHER, Parsed, parse

CITY = '{"city": "Paris"}'
CALL = f'{{"name": "get_weather", "arguments": {CITY}}}'
BLOCK = f"<tool_call>{CALL}</tool_call>"


def same(text: str, *, forced: bool = False, tools: tuple[Tool, ...] = TOOLS) -> Parsed:
    parsed = parse([text], forced=forced, tools=tools)
    assert parse(text, forced=forced, tools=tools) == parsed
    for at in range(len(text)):
        assert parse([text[:at], text[at:]], forced=forced, tools=tools) == parsed
    return parsed


PARIS = [
    BLOCK,
    f"\n <TOOL_CALL>\n{CALL}\n</TOOL_CALL>\n",
    f"<tool_calls>[{CALL}]</tool_calls>",
    f"<toolcall>{CALL}</toolcall>",
    f"<function_call>{CALL}</function_call>",
    f"< tool_call >{CALL}</ tool_call >",
    f"＜tool_call＞{CALL}＜/tool_call＞",
    f"‹tool_call›{CALL}‹/tool_call›",
    f'<tool_call>｛"name"：“get_weather”，"arguments"：{CITY}｝</tool_call>',
    f"<tool_call>\n```json\n{CALL}\n```\n</tool_call>",
    f"<tool_call>get_weather\n{CITY}</tool_call>",
    f'<tool_call>{{"name": "get-weather", "arguments": {CITY}}}</tool_call>',
    f'<tool_call>{{"name": "functions.Get_Weather", "arguments": {CITY}}}</tool_call>',
    f'<tool_call>{{"tool": "get_weather", "parameters": {CITY}}}</tool_call>',
    f'<tool_call>{{"tool_name": "get_weather", "args": {CITY}}}</tool_call>',
    f'<tool_call>{{"function": "get_weather", "input": {CITY}}}</tool_call>',
    f'<tool_call>{{"type": "function", "function": {CALL}}}</tool_call>',
    f'<tool_call>{{"function": {{"name": "get_weather"}}, "arguments": {CITY}}}</tool_call>',
    f'<tool_call>{{"arguments": {CITY}, "name": "get_weather"}}</tool_call>',
    f'<tool_call>{{"name": "get_weather", "arguments": {CITY}, "id": "1"}}</tool_call>',
    f'<tool_call>{{"name": "get_weather", "arguments": {CITY},}}</tool_call>',
    '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
    "<tool_call>{'name': 'get_weather', 'arguments': {'city': 'Paris',},}</tool_call>",
    '<tool_call>{name: "get_weather", arguments: {city: "Paris"}}</tool_call>',
    f'<tool_call>{{"name": "get_weather", "arguments": {CITY}}}',
    f'<tool_call>{{"name": "get_weather", "arguments": {CITY}',
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"',
    f'<tool_call>{{"arguments": {CITY}, "name": "get_weather"',
    f'<tool_call>{{"name": "get_weather", "arguments": {CITY}</tool_call>',
    f'<tool_call>{{"name": "get_weather", "arguments": {CITY}}}}}</tool_call>',
    f"<function=get_weather>{CITY}</function>",
    f"<tool_call>\n<function=get_weather>\n{CITY}\n</function>\n</tool_call>",
    f'<function name="get_weather">{CITY}</function>',
    "<function=get_weather><parameter=city>Paris</parameter></function>",
    "<tool_call><function=get_weather><parameter=city>\nParis\n</parameter></function></tool_call>",
    "<function=get_weather><parameter=city>Paris</function>",
    "<function=get_weather><parameter=city>Paris</parameter></tool_call>",
    "<function=get_weather><parameter=city>Paris</parameter>",
    "<function=get_weather><parameter=city>Paris</tool_call>",
    '<invoke name="get_weather"><parameter name="city">Paris</parameter></invoke>',
    (
        '<function_calls><invoke name="get_weather"><parameter name="city" string="true">Paris</parameter></invoke>'
        "</function_calls>"
    ),
    (
        '<x:function_calls><x:invoke name="get_weather"><x:parameter name="city">Paris</x:parameter></x:invoke>'
        "</x:function_calls>"
    ),
    f"[TOOL_CALLS] [{CALL}]",
    f"[TOOL_CALLS]get_weather{CITY}",
    f"[TOOL_CALLS]get_weather[ARGS]{CITY}",
    f"<|python_tag|>{CALL}<|eom_id|>",
    f"```json\n{CALL}\n```",
    f"```\n[{CALL}]\n```\n",
    f"```xml\n{BLOCK}\n```",
    f"~~~\n\n{CALL}\n~~~",
    f" {CALL}\n",
    f"[{CALL}]",
    (
        "&lt;tool_call&gt;{&quot;name&quot;: &quot;get_weather&quot;, &quot;arguments&quot;: "
        "{&quot;city&quot;: &quot;Paris&quot;}}&lt;/tool_call&gt;"
    ),
    f"&lt;tool_call&gt;{CALL}&lt;/tool_call&gt;",
    (
        "<tool_call>{&quot;name&quot;: &quot;get_weather&quot;, &quot;arguments&quot;: {&quot;city&quot;: "
        "&quot;Paris&quot;}}</tool_call>"
    ),
]


@pytest.mark.parametrize("text", PARIS)
def test_every_spelling_is_the_same_call(text: str) -> None:
    assert same(text) == Parsed("", (("get_weather", CITY, True),))


@pytest.mark.parametrize("text", PARIS)
def test_text_behind_a_call_is_cut_where_the_end_of_the_call_is_written(text: str) -> None:
    parsed = same(f"{text}\nIt is sunny.", forced=True)
    assert parsed.cut is not parsed.truncated or not parsed.calls
    for name, written, complete in parsed.calls:
        assert (name, complete) == ("get_weather", parsed.cut)
        assert CITY.startswith(written)


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('{"a": "x\ny\tz"}', '{"a": "x\\ny\\tz"}'),
        ('{"a": "}</tool_call>{", "b": "\\""}', '{"a": "}</tool_call>{", "b": "\\""}'),
        ("{'a': True, 'b': None, 'c': [1, 2.5,], }", '{"a": true, "b": null, "c": [1, 2.5] }'),
        ('{"a": "the "best" city"}', '{"a": "the \\"best\\" city"}'),
        ('{"a": 1 "b": 2}', '{"a": 1, "b": 2}'),
        ('{"a":1,"b":"x" "c":2}', '{"a":1,"b":"x","c":2}'),
        ('{"a":  1 "b": 2}', '{"a":  1 "b": 2}'),
        ('{"a":  1 "b": é}', '{"a":  1 "b": é}'),
        ('{"a": 1 "b": 1e999}', '{"a": 1 "b": 1e999}'),
        ('{"a": 1 and so on}', '{"a": 1 and so on}'),
        ('{"a": None "b": ["\u00e9\\ne"]}', '{"a": null, "b": ["\u00e9\\ne"]}'),
        ('{"a": 1 "b": "x\\n"}', '{"a": 1 "b": "x\\n"}'),
        ('{"a": 1 "b": "x\n"}', '{"a": 1 "b": "x\n"}'),
        ("{}", "{}"),
    ],
)
def test_arguments_are_strict_json_where_their_meaning_is_clear(written: str, arguments: str) -> None:
    assert same(f'<tool_call>{{"name": "get_weather", "arguments": {written}}}</tool_call>') == Parsed(
        "", (("get_weather", arguments, True),)
    )
    assert same(f"<function=get_weather>{written}</function>").calls == (("get_weather", arguments, True),)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('<tool_call>{"arguments": {"a": "the "best""}, "name": "get_weather"}</tool_call>', '{"a": "the \\"best\\""}'),
        ('<tool_call>{"name": "get_weather", "arguments": null', "{}"),
        ('<tool_call>{"arguments": {"a": "the "best""}, "name": "get_weather"}', '{"a": "the \\"best\\""}'),
        ('<tool_call>{"name": "get_weather", "arguments": {"a": "the "best""}}', '{"a": "the \\"best\\""}'),
        ('<tool_call>{"name": "get_weather"}</tool_call>', "{}"),
        ('<tool_call>{"name": "get_weather", "arguments": null}</tool_call>', "{}"),
        ('<tool_call>{"name": "get_weather", "arguments": ""}</tool_call>', "{}"),
        ('<tool_call>{"name": "get_weather", "arguments": "Paris"}</tool_call>', "Paris"),
        ('<tool_call>{"name": "get_weather", "arguments": "\\ud800"}</tool_call>', "\ufffd"),
        ('<tool_call>{"name": "get_weather", "arguments": [1]}</tool_call>', "[1]"),
        ("<function=get_weather></function>", "{}"),
        ("<function=get_weather><parameter=days> 3 </parameter></function>", '{"days": 3}'),
        ("<function=get_weather><parameter=city>3</parameter></function>", '{"city": "3"}'),
        ("<function=get_weather><parameter=city>a</parameter>b</parameter></function>", '{"city": "a</parameter>b"}'),
        ("<function=get_weather><parameter=city>a</function>b</parameter></function>", '{"city": "a</function>b"}'),
        (
            "<function=get_weather><parameter=city>a<parameter=days>1</parameter><b></function>",
            '{"city": "a", "days": 1}',
        ),
    ],
)
def test_other_arguments(text: str, arguments: str) -> None:
    assert same(text).calls == (("get_weather", arguments, True),)


TWO = (("get_weather", CITY, True), ("get_weather", "{}", True))
EMPTY = '{"name": "get_weather", "arguments": {}}'


@pytest.mark.parametrize(
    "text",
    [
        f"{BLOCK}\n<tool_call>{EMPTY}</tool_call>",
        f"<tool_call>{CALL}, {EMPTY}</tool_call>",
        f"<tool_call>[{CALL}, {EMPTY}]</tool_call>",
        f"<tool_call>{CALL}\n<tool_call>[{EMPTY}]",
        f"{BLOCK}[{EMPTY}]",
        f"<function=get_weather>{CITY}</function><function=get_weather></function>",
        "<function=get_weather><parameter=city>Paris</parameter><function=get_weather></function>",
        f'<function_calls><invoke name="get_weather">{CITY}</invoke><invoke name="get_weather">{{}}</invoke>',
        f"[TOOL_CALLS]get_weather{CITY}[TOOL_CALLS]get_weather{{}}",
        f"[TOOL_CALLS][{CALL},{EMPTY}]",
        f"{CALL}\n{EMPTY}",
        f"```json\n{CALL}\n```\n```json\n{EMPTY}\n```",
        f"{BLOCK}&lt;tool_call&gt;{EMPTY}&lt;/tool_call&gt;",
    ],
)
def test_several_calls(text: str) -> None:
    assert same(text) == Parsed("", TWO)


@pytest.mark.parametrize(
    "rest", ["It is", "<b>", "<tool_call>x", '<tool_call>{"name": "other"}', "<function=other>", "{1}"]
)
def test_other_text_behind_a_call_is_cut(rest: str) -> None:
    assert same(f"Wait.\n{BLOCK}\n{rest}") == Parsed("Wait.\n", (("get_weather", CITY, True),), cut=True)


@pytest.mark.parametrize(
    "text",
    [
        "a < b, [x], {y}, `z` & c ~ d",
        "\n \n",
        " text\n",
        '<tool_call>{"name": "other", "arguments": {"a": "<tool_call>"}}</tool_call> text',
        '<tool_call>{"name": "other", "arguments": {"a": 1 2}}</tool_call> text',
        '<tool_call>{"name": "other", "a": {"b"',
        "<function=other>" + BLOCK + "</function> text",
        "<function=other><",
        "<tool_call>text</tool_call>",
        "<tool_call>[[1]]</tool_call>",
        "<tool_call>other{}</tool_call>",
        "<tool_call>apply_patch{}</tool_call>",
        "<tool_call>",
        "<tool_call>{",
        '<tool_call>{"a": "b"',
        '<tool_call>{"function": {"function": {"name": "get_weather"}}}</tool_call>',
        '<tool_call>{"name": "apply_patch"</tool_call>',
        '<tool_call>{"a": 1 2}</tool_call>',
        '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "city": "Paris"}</tool_call>',
        '<tool_call>{"args": {}, "input": {}, "name": "get_weather"}</tool_call>',
        '<tool_call>{"arguments": {"a": 1 2}, "name": "other"}</tool_call>',
        '<tool_call>{"arguments": {"a" 1}}</tool_call>',
        '<tool_call>{"arguments": é}</tool_call>',
        "<function=get_weather>text</function>",
        "<invoke name='apply_patch'><parameter name='a'>1</parameter><parameter name='b'>2</parameter></invoke>",
        '{"name": "Ann", "age": 3}',
        '{"city": "Paris"}',
        '{"name": "get_weather", "a": 1}',
        "[1, 2]",
        f"```\n{BLOCK} and\n```\n",
        f"```json\n{CALL}\n```\nThis is a call.",
        f"~~~\n{CALL}\n``` \n~~~\nThis is a call.",
        f"````\n{CALL}\n``` ````\nno end",
        f"Like this:\n```json\n{CALL}\n```",
        f"Like this:\n  ~~~~\n~~~\n{BLOCK}\n",
        f"{CALL} is a call.",
        '```json\n{"name": "other"}\n```\nand ```',
        "<tool_call>```json\ntext\n```\n</tool_call>",
        "&lt;tool_call&gt;{&quot;name&quot;: &quot;other&quot;}&lt;/tool_call&gt;",
        '&lt;tool_call&gt;{"name": "get_weather", "arguments": {"a": "&lt;"}}&lt;/tool_call&gt;',
        "&lt;tool_call&gt;{&quot;name&quot;: &quot;get_weather&quot;}",
    ],
)
def test_everything_else_is_text(text: str) -> None:
    parsed = same(text)
    assert (parsed.text, parsed.calls, parsed.cut) == (text, (), False)


def test_calls_behind_text_that_looked_like_one() -> None:
    for text in (
        "<tool_call>text</tool_call>",
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        "<function=other>x</function>",
        "```\ncode\n```\n",
        "```json\n{}\n```\n",
        '{"name": "other"}',
    ):
        assert same(f"{text}{BLOCK}") == Parsed(text, (("get_weather", CITY, True),))


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('<tool_call>{"name": "get_weather", "arguments": {', "{"),
        ('<tool_call>{"name": "get_weather", "arguments": {"a"', '{"a'),
        ('<tool_call>{"name": "get_weather", "arguments": {"a":', '{"a":'),
        ('<tool_call>{"name": "get_weather", "arguments": {"a": tr', '{"a": '),
        ('<tool_call>{"name": "get_weather", "arguments": {"a": 12', '{"a": '),
        ('<tool_call>{"name": "get_weather", "arguments": {"a": 1,', '{"a": 1'),
        ('<tool_call>{"name": "get_weather", "arguments": {"a": "x\\', '{"a": "x'),
        ('<tool_call>{"name": "get_weather", "arguments": {"a": "x" y', '{"a": "x'),
        ('<tool_call>{"name": "get_weather", "arguments": {true', "{"),
    ],
)
def test_arguments_that_are_cut_have_no_end(text: str, arguments: str) -> None:
    assert same(text) == Parsed("", (("get_weather", arguments, False),), truncated=True)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "get_weather", "arguments": ',
        '<tool_call>{"name": "get_weather", "arguments": "{',
        '<tool_call>{"name": "get_weather", "arguments": x y',
        "<function=get_weather>",
        "<function=get_weather><parameter=city>Pa",
        "<function=get_weather><parameter=city>Paris</parameter><parameter=days>1",
        "<function=apply_patch>*** Begin",
        '<tool_call>{"name": "apply_patch"',
        '<tool_call>{"name": "apply_patch"}',
        '{"name": "get_weather", "arguments": {"city": "Pa',
    ],
)
def test_a_call_that_is_cut_before_it_began_is_text(text: str) -> None:
    assert same(text) == Parsed(text, truncated=True)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (
            '<tool_call>{"name": "apply_patch"}\n*** Begin\n+</tool_call>;\n*** End</tool_call>',
            "*** Begin\n+</tool_call>;\n*** End",
        ),
        ('<tool_call>{"name": "apply_patch"} \r\nx & <b>\n</tool_call>', "x & <b>"),
        ('<tool_call>{"name": "apply_patch"}\nx\n\n</tool_call>', "x\n"),
        ('<tool_call>{"name": "apply_patch"}x</tool_call>', "x"),
        ('<tool_call>{"name": "apply_patch"}</tool_call>', ""),
        ('<tool_call>{"name": "apply_patch", "arguments": {"input": "a\\nb"}}</tool_call>', "a\nb"),
        ('<tool_call>{"name": "apply_patch", "input": "a\\nb"}</tool_call>', "a\nb"),
        ('<tool_call>{"name": "apply_patch", "input": {"a": "1", "b": "2"}}</tool_call>', '{"a": "1", "b": "2"}'),
        ("<function=apply_patch>\n a\n</function>", " a\n"),
        ("<function=apply_patch> a</function>", " a"),
        ("<function=apply_patch>{x}</function>", "{x}"),
        ('<function=apply_patch>{"input": "a\\nb"}</function>', "a\nb"),
        ('<invoke name="apply_patch"><parameter name="input">a\n</parameter></invoke>', "a\n"),
    ],
)
def test_the_input_of_a_custom_tool_is_free_text(text: str, written: str) -> None:
    assert same(text) == Parsed("", (("apply_patch", written, True),))


def test_free_text_ends_before_other_text_or_is_cut() -> None:
    head = '<tool_call>{"name": "apply_patch"}\n'
    assert same(f"{head}a\n</tool_call>Done.") == Parsed("", (("apply_patch", "a", True),), cut=True)
    assert same(f"{head}a</tool_call>Done.") == Parsed(
        "", (("apply_patch", "a</tool_call>Done.", False),), truncated=True
    )


def test_a_custom_call_that_is_broken_is_text() -> None:
    text = '<tool_call>{"id": 1 2, "name": "apply_patch"}</tool_call>'
    assert same(text) == Parsed(text)


def test_events_are_emitted_as_soon_as_their_text_is_certain() -> None:
    parser = CallParser(TOOLS, new_id=lambda: "call_1")
    assert parser.feed("See ") == [TextDelta("See ")]
    assert parser.feed("a < b <tool") == [TextDelta("a < b ")]
    assert parser.feed('_call>{"name": "get_weather", "arguments": ') == []
    assert parser.feed("{") == [ToolCallStarted(0, "call_1", "get_weather"), ToolCallDelta(0, "{")]
    assert parser.feed('"city": "Par') == [ToolCallDelta(0, '"city": "Par')]
    assert parser.feed('is"}') == [ToolCallDelta(0, 'is"}'), ToolCallFinished(0)]
    assert parser.feed("}</tool_call>") == []
    assert [parser.cut, parser.feed(" It"), parser.cut] == [False, [], True]
    assert parser.feed("<tool_call>") == []
    assert parser.finish() == []


def test_text_that_may_be_a_whole_call_streams_once_it_is_none() -> None:
    parser = CallParser(TOOLS, new_id=lambda: "call_1")
    assert parser.feed('{"name": ') == []
    assert parser.feed('"Ann"') == [TextDelta('{"name": "Ann"')]
    assert parser.feed(', "age"') == [TextDelta(', "age"')]


def test_arguments_that_are_too_long_or_too_deep_for_a_repair_stay_as_written() -> None:
    for written in (
        f'{{"a": "{"x" * MAX_REPAIR}" y}}',
        f'{{"a": 1 "b": {"[" * 5000}}}',
        '{"a":' * 200 + "1" + "}" * 200,
    ):
        call = f'<tool_call>{{"name": "get_weather", "arguments": {written}}}</tool_call>'
        assert parse([call]) == Parsed("", (("get_weather", written, True),))


@pytest.mark.parametrize("size", [MAX_HELD, 7])
def test_a_long_answer_without_a_mark_is_text(size: int) -> None:
    text = f'{{"name": "get_weather", "arguments": {{"city": "{"x" * MAX_HELD}"}}}}'
    assert parse([text[at : at + size] for at in range(0, len(text), size)]) == Parsed(text)
    fence = f"```json\n{text}\n```\n"
    assert parse([fence[at : at + size] for at in range(0, len(fence), size)]) == Parsed(fence)
    assert len(parse([text], forced=True).calls) == 1


def test_calls_in_reasoning_count_if_nothing_visible_follows() -> None:
    thought = f"I need it.\n{BLOCK}"
    assert parse(["\n"], reasoning=thought) == Parsed("", (("get_weather", CITY, True),))
    assert parse([], reasoning=thought + " sunny") == Parsed("", (("get_weather", CITY, True),))
    assert parse(["Sunny."], reasoning=thought) == Parsed("Sunny.")
    assert parse([" "], reasoning=thought[:-30]) == Parsed(" ")
    assert parse([BLOCK.replace("Paris", "Rome")], reasoning=thought).calls == (
        ("get_weather", '{"city": "Rome"}', True),
    )


def test_names_that_are_similar_to_two_tools_are_unknown() -> None:
    tools = (WEATHER, Tool("get-weather"), PATCH, Tool("_"))
    assert same(BLOCK, tools=tools).calls == (("get_weather", CITY, True),)
    for name in ("GetWeather", "-", "functions.x"):
        text = BLOCK.replace("get_weather", name)
        assert same(text, tools=tools) == Parsed(text)


@pytest.mark.parametrize("name", ["getWeather", "GET WEATHER", "tools.get_weather", "function:get-weather"])
def test_similar_names_are_corrected(name: str) -> None:
    assert same(BLOCK.replace("get_weather", name)).calls == (("get_weather", CITY, True),)


def test_a_call_behind_unclosed_parameters_may_be_cut_off() -> None:
    text = '<invoke name="get_weather"><parameter name="city">Rome</parameter><</invoke>[TOOL_CALLS]get_weather{<'
    parsed = same(text)
    assert parsed.calls == (("get_weather", '{"city": "Rome"}', True), ("get_weather", "{", False))
    assert parsed.truncated
