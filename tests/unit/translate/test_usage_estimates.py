"""Estimated token counts."""

from __future__ import annotations

import pytest

from openai_dify_proxy.events import ReasoningDelta, RefusalDelta, TextDelta, Usage
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall, TurnMessages, TurnRequest
from openai_dify_proxy.translate.usage_estimates import (
    characters_of,
    estimate_tokens,
    estimate_usage,
    prompt_characters,
)
from tests.tool_events import WEATHER, events_of_calls


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_four_characters_are_a_token(characters: int, tokens: int) -> None:
    assert estimate_tokens(characters) == tokens


def test_the_estimate_counts_all_parts_of_an_answer() -> None:
    answer = Answer()
    answer.add([ReasoningDelta("four"), TextDelta("sixsix"), *events_of_calls(WEATHER)])
    assert estimate_usage(10, answer) == Usage(3, 10, 13)  # 4 + 6 + 11 + 17 characters
    refused = Answer()
    refused.add([RefusalDelta("eightily")])
    assert estimate_usage(0, refused) == Usage(0, 2, 2)


def test_the_prompt_is_all_text_of_the_request() -> None:
    history = (HistoryMessage("user", "abc"), HistoryMessage("assistant", "", (ToolCall("call_1", "f", "{}"),)))
    assert characters_of(history[1]) == 3
    assert prompt_characters(TurnRequest("de", system="s", history=history)) == 9
    assert prompt_characters(TurnMessages("de", (HistoryMessage("user", "de"),))) == 2
