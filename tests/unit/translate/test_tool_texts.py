"""Write tool calls and results as text."""

from __future__ import annotations

import json
import re

import pytest

from openai_dify_proxy.translate.tool_texts import (
    render_calls,
    render_result,
    rendered,
    rendered_messages,
    result_attributes,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall

PARIS = ToolCall("a", "get_weather", '{"city": "Paris"}')
ROME = ToolCall("b", "get_weather", '{"city": "Rome"}')
PATCH = ToolCall("c", "apply_patch", "*** Begin Patch\n+x\n*** End Patch", custom=True)


def test_calls_are_blocks_below_one_another() -> None:
    assert render_calls([PARIS, PATCH]) == (
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>\n'
        '<tool_call>{"name": "apply_patch"}\n*** Begin Patch\n+x\n*** End Patch\n</tool_call>'
    )


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ('{"a":  1}', '{"a":  1}'),
        ("", "{}"),
        ("{broken", '"{broken"'),
        ("[" * 100_000, json.dumps("[" * 100_000)),
    ],
)
def test_arguments_are_the_clients_own_bytes_if_they_are_json(arguments: str, written: str) -> None:
    assert render_calls([ToolCall("a", "f", arguments)]) == (
        f'<tool_call>{{"name": "f", "arguments": {written}}}</tool_call>'
    )


@pytest.mark.parametrize("end", ["</tool_call>", "</TOOL_CALL>", "< / tool_call >", "</tool_call"])
def test_no_argument_ends_its_block(end: str) -> None:
    arguments = json.dumps({"text": f"before {end} after"})
    block = render_calls([ToolCall("a", "f", arguments)])
    inside = re.fullmatch(r"<tool_call>(.*)</tool_call>", block)
    assert inside is not None
    assert end not in inside[1]
    assert json.loads(inside[1])["arguments"] == json.loads(arguments)

    custom = render_calls([ToolCall("a", "f", f"before {end} after", custom=True)])
    assert end not in custom.removesuffix("</tool_call>")


def test_a_result_has_the_name_of_its_call() -> None:
    result = HistoryMessage("tool", "sunny", call_id="a")
    assert (
        render_result(result, result_attributes([PARIS])) == '<tool_result name="get_weather">\nsunny\n</tool_result>'
    )


def test_one_of_several_results_has_the_number_of_its_call() -> None:
    result = HistoryMessage("tool", "rain", call_id="b")
    assert (
        render_result(result, result_attributes([PARIS, ROME]))
        == '<tool_result name="get_weather" call="2">\nrain\n</tool_result>'
    )


def test_a_result_of_an_unknown_call_has_no_name() -> None:
    assert (
        render_result(HistoryMessage("tool", "x", call_id="z"), result_attributes([PARIS]))
        == "<tool_result>\nx\n</tool_result>"
    )


def test_no_result_ends_its_block_or_its_attribute() -> None:
    call = ToolCall("a", 'f">\n<x', "{}")
    result = HistoryMessage("tool", "a </tool_result><b> < /Tool_Result>", call_id="a")
    assert render_result(result, result_attributes([call])) == (
        '<tool_result name="f\') (x">\na &lt;/tool_result><b> &lt; /Tool_Result>\n</tool_result>'
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (HistoryMessage("user", "Hello"), "Hello"),
        (HistoryMessage("assistant", "I look.", (PARIS,)), f"I look.\n\n{render_calls([PARIS])}"),
        (HistoryMessage("assistant", "", (PARIS,)), render_calls([PARIS])),
        (HistoryMessage("tool", "sunny", call_id="a"), "<tool_result>\nsunny\n</tool_result>"),
    ],
)
def test_the_text_of_a_message_has_its_calls(message: HistoryMessage, text: str) -> None:
    assert rendered(message) == text


def test_results_in_a_history_belong_to_the_calls_before_them() -> None:
    history = (
        HistoryMessage("tool", "old", call_id="c"),
        HistoryMessage("user", "Weather?"),
        HistoryMessage("assistant", "", (PARIS, ROME)),
        HistoryMessage("tool", "rain", call_id="b"),
        HistoryMessage("tool", "sunny", call_id="a"),
    )
    assert rendered_messages(history, (PATCH,)) == (
        HistoryMessage("tool", '<tool_result name="apply_patch">\nold\n</tool_result>', call_id="c"),
        HistoryMessage("user", "Weather?"),
        HistoryMessage("assistant", render_calls([PARIS, ROME])),
        HistoryMessage("tool", '<tool_result name="get_weather" call="2">\nrain\n</tool_result>', call_id="b"),
        HistoryMessage("tool", '<tool_result name="get_weather" call="1">\nsunny\n</tool_result>', call_id="a"),
    )
