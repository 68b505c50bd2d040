from __future__ import annotations

import pytest

from openai_dify_proxy.events import (
    Event,
    ReasoningDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    TurnFinished,
    merge_deltas,
)

A, B, C = (TextDelta(text) for text in "abc")
WHY, HOW = ReasoningDelta("why"), ReasoningDelta("how")
STEP = StepChanged("Search", "started")
REPLACED = TextReplaced("new", moderated=True)
END = TurnFinished("stop")

# Events, and the same events merged.
CASES: dict[str, tuple[list[Event], list[Event]]] = {
    "none": ([], []),
    "one delta": ([A], [A]),
    "one other event": ([END], [END]),
    "text": ([A, B, C], [TextDelta("abc")]),
    "reasoning": ([WHY, HOW], [ReasoningDelta("whyhow")]),
    "reasoning, then text": ([WHY, HOW, A, B], [ReasoningDelta("whyhow"), TextDelta("ab")]),
    "one kind in turn with the other": ([A, WHY, B, HOW], [A, WHY, B, HOW]),
    "an event between deltas": ([A, B, STEP, C, A], [TextDelta("ab"), STEP, TextDelta("ca")]),
    "other events are never merged": ([STEP, STEP, REPLACED, REPLACED], [STEP, STEP, REPLACED, REPLACED]),
    "a replacement is no delta": ([A, REPLACED, B, C], [A, REPLACED, TextDelta("bc")]),
    "the end comes last": ([A, B, END], [TextDelta("ab"), END]),
}


@pytest.mark.parametrize(("events", "merged"), CASES.values(), ids=CASES)
def test_adjacent_deltas_of_one_kind_are_merged(events: list[Event], merged: list[Event]) -> None:
    given = list(events)
    assert merge_deltas(events) == merged
    assert events == given
