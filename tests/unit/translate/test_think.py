from __future__ import annotations

import pytest

from openai_dify_proxy.events import Event, ReasoningDelta, TextDelta
from openai_dify_proxy.translate.think import MAX_BLOCKS, ThinkSplitter, without_thinking

# A model's text, its reasoning, and its visible part.
CASES: dict[str, tuple[str, str, str]] = {
    "plain text": ("Hello.", "", "Hello."),
    "a block before the answer": ("<think>hm</think>Hello.", "hm", "Hello."),
    "as models write it": ("<think>\nhm\n</think>\n\nHello.", "hm\n", "Hello."),
    "CRLF after the block": ("<think>hm</think>\r\n\r\nHello.", "hm", "Hello."),
    "an empty block": ("<think></think>\n\nHello.", "", "Hello."),
    "an empty block, as models write it": ("<think>\n\n</think>\n\nHello.", "\n", "Hello."),
    "two blocks": ("<think>a</think>\n\n<think>b</think>\n\nHello.", "ab", "Hello."),
    "a block in the middle keeps the lines around it": ("A\n<think>\nhm</think>\n\nB", "hm", "A\n\n\nB"),
    "indentation after a block stays": ("<think>a</think>\n  code", "a", "  code"),
    "a block that never ends": ("<think>hm, and so", "hm, and so", ""),
    "a tag inside a block is text": ("<think>a <think> b</think>c", "a <think> b", "c"),
    "a closing tag alone is text": ("a</think>b", "", "a</think>b"),
    "less-than signs": ("1 < 2 <3 << <", "", "1 < 2 <3 << <"),
    "other tags": ("<thin>k <thinking> <think >", "", "<thin>k <thinking> <think >"),
    "almost a closing tag": ("<think>a </thin k> </think", "a </thin k> </think", ""),
    "a tag begun twice": ("<<think>a</</think>b", "a</", "<b"),
    "line ends before the answer of a text without thinking": ("\n\nHello.", "", "\n\nHello."),
    "only line ends after the block": ("<think>a</think>\n\n", "a", ""),
    "letter case counts": ("<Think>a</Think>", "", "<Think>a</Think>"),
    "not only ASCII": ("<think>思考🤔</think>答え\u2028", "思考🤔", "答え\u2028"),
}


def read(parts: list[str]) -> tuple[str, str]:
    out: list[Event] = []
    splitter = ThinkSplitter()
    for part in parts:
        splitter.feed(part, out)
    splitter.close(out)
    assert all(isinstance(event, (TextDelta, ReasoningDelta)) and event.text for event in out)
    reasoning = "".join(event.text for event in out if isinstance(event, ReasoningDelta))
    return reasoning, "".join(event.text for event in out if isinstance(event, TextDelta))


@pytest.mark.parametrize(("text", "reasoning", "visible"), CASES.values(), ids=CASES)
def test_every_split_of_the_text(text: str, reasoning: str, visible: str) -> None:
    assert read([text]) == (reasoning, visible)
    assert read(list(text)) == (reasoning, visible)
    for at in range(1, len(text)):
        assert read([text[:at], text[at:]]) == (reasoning, visible), at


@pytest.mark.parametrize(("text", "visible"), [(case[0], case[2]) for case in CASES.values()], ids=CASES)
def test_the_visible_part_of_a_whole_text(text: str, visible: str) -> None:
    assert without_thinking(text) == visible


def test_only_a_possible_tag_is_held_back() -> None:
    out: list[Event] = []
    splitter = ThinkSplitter()
    splitter.feed("Hello <thi", out)
    assert out == [TextDelta("Hello ")]
    splitter.feed("s> is", out)
    assert out == [TextDelta("Hello "), TextDelta("<this> is")]


def test_reasoning_separated_by_dify_counts_as_a_block() -> None:
    out: list[Event] = []
    splitter = ThinkSplitter()
    splitter.reason("\n", out)
    splitter.reason("hm", out)
    splitter.reason("", out)
    splitter.feed("\n\nHello.", out)
    assert out == [ReasoningDelta("hm"), TextDelta("Hello.")]


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_tags_after_very_many_blocks_are_text(size: int) -> None:
    block = "<think>a</think>"
    text = block * MAX_BLOCKS + "x" + block * 3
    out: list[Event] = []
    splitter = ThinkSplitter()
    for begin in range(0, len(text), size):
        splitter.feed(text[begin : begin + size], out)
    splitter.close(out)
    assert "".join(event.text for event in out if isinstance(event, ReasoningDelta)) == "a" * MAX_BLOCKS
    assert "".join(event.text for event in out if isinstance(event, TextDelta)) == "x" + block * 3
