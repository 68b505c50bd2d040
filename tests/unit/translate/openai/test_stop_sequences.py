from __future__ import annotations

import pytest

from openai_dify_proxy.errors import StreamCut
from openai_dify_proxy.events import (
    Event,
    FileProduced,
    ReasoningDelta,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnFinished,
    Usage,
)
from openai_dify_proxy.translate.openai.stop_sequences import StopSequences

# Sequences, the text, its visible part, and whether a sequence was hit.
CASES: dict[str, tuple[list[str], str, str, bool]] = {
    "none is hit": (["END"], "Hello.", "Hello.", False),
    "in the middle": (["END"], "Hello. END of story", "Hello. ", True),
    "at the beginning": (["END"], "ENDless", "", True),
    "at the end": (["END"], "The END", "The ", True),
    "only its beginning": (["END"], "The EN", "The EN", False),
    "begun but not completed": (["END"], "EN EEND", "EN E", True),
    "one that overlaps itself": (["aab"], "aaab", "a", True),
    "the first of several": (["\n\n", "User:"], "a User: b\n\nc", "a ", True),
    "the one that is complete first": (["abcd", "bc"], "xabcd", "xa", True),
    "two that end together": (["abc", "bc"], "xabc", "x", True),
    "line ends": (["\n"], "one\ntwo", "one", True),
    "not only ASCII": (["。", "🛑"], "はい🛑。", "はい", True),
}


def cut(sequences: list[str], parts: list[str]) -> tuple[str, bool]:
    stop = StopSequences(sequences)
    text = ""
    for part in parts:
        for event in stop.filter([TextDelta(part)]):
            if isinstance(event, TextDelta):
                assert event.text
                text += event.text
            else:
                assert event == TurnFinished("stop")
        if stop.hit:
            return text, True
    *rest, last = stop.filter([TurnFinished("stop")])
    assert last == TurnFinished("stop")
    return text + "".join(event.text for event in rest if isinstance(event, TextDelta)), False


@pytest.mark.parametrize(("sequences", "text", "seen", "hit"), CASES.values(), ids=CASES)
def test_every_split_of_the_text(sequences: list[str], text: str, seen: str, hit: bool) -> None:
    assert cut(sequences, [text]) == (seen, hit)
    assert cut(sequences, list(text)) == (seen, hit)
    for at in range(1, len(text)):
        assert cut(sequences, [text[:at], text[at:]]) == (seen, hit), at


def test_the_turn_ends_with_the_sequence() -> None:
    """The stream does not wait for later text of the upstream or for its usage."""
    stop = StopSequences(["END"])
    events: list[Event] = [TextDelta("a END"), TextDelta("b"), TurnFinished("length", Usage(1, 2, 3))]
    assert stop.filter(events) == [TextDelta("a "), TurnFinished("stop")]


def test_other_events_pass() -> None:
    stop = StopSequences(["END"])
    file = FileProduced("http://dify/files/END", "image")
    events: list[Event] = [ReasoningDelta("END"), file]
    assert stop.filter(events) == events
    assert not stop.hit


def test_a_folded_answer_is_cut_too() -> None:
    finished = TurnFinished("stop", Usage(1, 2, 3), "One. END. Two.")
    assert StopSequences(["END"]).filter([finished]) == [TurnFinished("stop", Usage(1, 2, 3), "One. ")]


def test_a_failure_releases_held_back_text() -> None:
    stop = StopSequences(["END"])
    failed = TurnFailed(StreamCut("cut"))
    assert stop.filter([TextDelta("The EN"), failed]) == [TextDelta("The "), TextDelta("EN"), failed]


def test_a_replacement_is_cut_and_discards_held_back_text() -> None:
    stop = StopSequences(["END"])
    assert stop.filter([TextDelta("The E"), TextReplaced("Preset.", moderated=True)]) == [
        TextDelta("The "),
        TextReplaced("Preset.", moderated=True),
    ]
    assert stop.filter([TextDelta("ND")]) == [TextDelta("ND")]
    assert stop.filter([TextReplaced("a END b", moderated=False)]) == [
        TextReplaced("a ", moderated=False),
        TurnFinished("stop"),
    ]


def test_a_sequence_across_the_end_of_a_replacement() -> None:
    stop = StopSequences(["END"])
    assert stop.filter([TextReplaced("The E", moderated=False), TextDelta("ND.")]) == [
        TextReplaced("The ", moderated=False),
        TurnFinished("stop"),
    ]
