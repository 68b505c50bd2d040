"""Work that grows with the size of a text, not with its square, for texts of any content.

Work is counted in characters read or copied, or shown by a size at which quadratic work would take hours. No test
measures time.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openai_dify_proxy.events import Event
from openai_dify_proxy.translate.role_lines import PLAIN_LINES
from openai_dify_proxy.translate.think import ThinkSplitter, without_thinking
from tests.security.counting import CountedText

MIB = 1 << 20

TAGGED = {
    "empty blocks": "<think></think>",
    "short blocks": "a<think>b</think>",
    "blocks and line ends": "<think>\n</think>\n",
    "tags that never close": "<think>",
    "closing tags": "</think>",
    "beginnings of tags": "<thin",
}


def characters_read_by_the_splitter(text: str, size: int) -> int:
    counter = [0]
    out: list[Event] = []
    splitter = ThinkSplitter()
    for begin in range(0, len(text), size):
        splitter.feed(CountedText(text[begin : begin + size], counter), out)
    splitter.close(out)
    return counter[0]


@pytest.mark.parametrize("unit", TAGGED.values(), ids=TAGGED)
@pytest.mark.parametrize("size", [1 << 30, 100], ids=["at once", "in pieces"])
def test_thinking_is_split_off_in_linear_work(unit: str, size: int) -> None:
    once = characters_read_by_the_splitter(unit * 500, size)
    twice = characters_read_by_the_splitter(unit * 1000, size)
    assert twice <= 2.1 * once
    assert once <= 6 * 500 * len(unit)


# Quadratic work at these sizes takes hours.
HUGE: dict[str, tuple[Callable[[str], object], str]] = {
    **{f"thinking: {name}": (without_thinking, unit) for name, unit in TAGGED.items()},
    "role lines": (PLAIN_LINES.escape, "User:\n"),
    "indented role lines": (PLAIN_LINES.escape, " " * 100 + "User:\n"),
    "roles without a colon": (PLAIN_LINES.escape, "User" + " " * 100 + "\n:"),
    "a single indentation": (PLAIN_LINES.escape, " "),
    "empty lines": (PLAIN_LINES.escape, "\n:\r\u2028"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("work", "unit"), HUGE.values(), ids=HUGE)
def test_a_huge_text_is_read(work: Callable[[str], object], unit: str) -> None:
    work(unit * (8 * MIB // len(unit)))
