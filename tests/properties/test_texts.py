"""Compare the incremental text filters with simple implementations over whole texts."""

from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from openai_dify_proxy.events import Event, ReasoningDelta, TextDelta, TextReplaced, TurnFinished
from openai_dify_proxy.translate.dify.dedupe import TextAssembly
from openai_dify_proxy.translate.dify.transcript import PLAIN
from openai_dify_proxy.translate.openai.stop_sequences import StopSequences
from openai_dify_proxy.translate.role_lines import HEADING, QUESTION
from openai_dify_proxy.translate.think import ThinkSplitter, without_thinking
from openai_dify_proxy.translate.turn_request import HistoryMessage
from tests.properties.strategies import AWKWARD, tagged, texts
from tests.properties.thinking import split_whole


def pieces_of(parts: list[str]) -> list[str]:
    return [part for part in parts if part]


@given(st.lists(texts | tagged, max_size=8))
def test_thinking_is_split_off_as_in_the_whole_text(parts: list[str]) -> None:
    text = "".join(parts)
    for pieces in (pieces_of(parts), list(text)):
        out: list[Event] = []
        splitter = ThinkSplitter()
        for piece in pieces:
            splitter.feed(piece, out)
        splitter.close(out)
        reasoning = "".join(event.text for event in out if isinstance(event, ReasoningDelta))
        visible = "".join(event.text for event in out if isinstance(event, TextDelta))
        assert (reasoning, visible) == split_whole(text)
    assert without_thinking(text) == split_whole(text)[1]


letters = st.text(alphabet="abE\n🛑", max_size=12)
sequences = st.lists(st.text(alphabet="abE\n🛑", min_size=1, max_size=4), min_size=1, max_size=4)


def cut_whole(text: str, stops: list[str]) -> tuple[str, bool]:
    """Find the first position at which a sequence ends; cut the text before the longest one that ends there."""
    for end in range(len(text) + 1):
        whole = [stop for stop in stops if text[:end].endswith(stop)]
        if whole:
            return text[: end - max(map(len, whole))], True
    return text, False


def filtered(stops: list[str], events: list[Event]) -> tuple[str, bool]:
    stop = StopSequences(stops)
    text = ""
    for event in [*events, TurnFinished("stop")]:
        for seen in stop.filter([event]):
            if isinstance(seen, TextDelta):
                text += seen.text
            elif isinstance(seen, TextReplaced):
                text = seen.text
        if stop.hit:
            break
    return text, stop.hit


@given(st.lists(letters, max_size=6), sequences)
def test_stop_sequences_cut_as_the_whole_text_is_cut(parts: list[str], stops: list[str]) -> None:
    text = "".join(parts)
    expected = cut_whole(text, stops)
    assert filtered(stops, [TextDelta(part) for part in pieces_of(parts)]) == expected
    assert filtered(stops, [TextDelta(character) for character in text]) == expected
    assert not any(stop in expected[0] for stop in stops)


@given(letters, letters, letters, sequences)
def test_stop_sequences_cut_the_replacement_of_a_text(before: str, text: str, after: str, stops: list[str]) -> None:
    assume(before and after and not cut_whole(before, stops)[1])
    events: list[Event] = [TextDelta(before), TextReplaced(text, moderated=False), TextDelta(after)]
    assert filtered(stops, events) == cut_whole(text + after, stops)


@given(st.lists(texts, min_size=1, max_size=5), st.lists(texts, max_size=5), st.integers(0, 4))
def test_the_text_of_a_retried_node_is_its_last_version(first: list[str], second: list[str], tries: int) -> None:
    """The visible text is the last version, or the longest version that begins with it."""
    assembly = TextAssembly()
    shown = ""
    for attempt in [first, *[second] * tries]:
        for part in pieces_of(attempt):
            news = assembly.add("llm", part)
            shown = assembly.text() if news is None else shown + news
        assembly.begin_retry("llm")
    assert shown == assembly.text()
    one, two = "".join(first), "".join(second)
    if tries:
        assert shown == (one if one.startswith(two) else two)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), texts), min_size=1, max_size=4))
def test_every_line_that_looks_like_a_role_is_one(messages: list[tuple[str, str]]) -> None:
    forged = [
        HistoryMessage(role, f"{text}\n{label}: {text}")
        for (role, text), label in zip(messages, ["User", "assistant", " Tool ", "SYSTEM"], strict=False)
    ]
    lines = "".join(PLAIN.lines(forged)).splitlines()
    roles = [line for line in lines if re.match(r"\s*(user|assistant|tool|system)\s*:", line, re.IGNORECASE)]
    assert len(roles) == len(forged)


@given(st.lists(st.sampled_from([*AWKWARD, HEADING, QUESTION, "\n\n", "x"]), max_size=8).map("".join))
def test_a_transcript_never_contains_its_delimiter_lines(text: str) -> None:
    lines = "".join(PLAIN.lines([HistoryMessage("tool", f"x\n{text}")])).splitlines()
    assert not {HEADING, QUESTION} & {line.strip() for line in lines}
