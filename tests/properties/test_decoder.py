"""For any bytes and any split of them, the decoder returns the same events and one end, and raises nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from openai_dify_proxy.events import Event, ReasoningDelta, TextDelta, TextReplaced, TurnFailed, TurnFinished
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.dify.sse import FrameSplitter
from openai_dify_proxy.wire.dify import Mode
from tests.deltas import join_events
from tests.dify_streams import message, message_end, stream
from tests.properties.strategies import Turn, cuts, garbage, mistyped, modes, plain_turns, turns
from tests.properties.thinking import split_whole

LIMIT = 1 << 20


def decode(mode: Mode, pieces: list[bytes], **options: Any) -> list[Event]:
    decoder = DifyEventDecoder(mode, origin="https://dify.example", **options)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.finish()


def described(events: list[Event]) -> list[str]:
    """Make events comparable: adjacent deltas are joined, and errors with the same text are equal."""
    return [
        f"failed {event.error.status} {event.error.code} {event.error}"
        if isinstance(event, TurnFailed)
        else repr(event)
        for event in join_events(events)
    ]


@given(st.data(), turns, st.booleans())
def test_any_split_of_the_bytes_gives_the_same_events(data: st.DataObject, turn: Turn, progress: bool) -> None:
    whole = described(decode(turn.mode, [turn.data], progress=progress))
    pieces = data.draw(cuts(turn.data))
    assert described(decode(turn.mode, pieces, progress=progress)) == whole
    single = [turn.data[at : at + 1] for at in range(len(turn.data))]
    assert described(decode(turn.mode, single, progress=progress)) == whole


@given(turns, garbage, st.data())
def test_any_split_gives_the_same_events_with_trailing_garbage(turn: Turn, rest: bytes, data: st.DataObject) -> None:
    followed = turn.data + rest
    whole = described(decode(turn.mode, [followed]))
    assert described(decode(turn.mode, data.draw(cuts(followed)))) == whole
    assert described(decode(turn.mode, [turn.data, rest])) == whole


@given(turns)
def test_a_balancer_that_rewrites_line_ends_changes_nothing(turn: Turn) -> None:
    rewritten = turn.data.replace(b"\n", b"\r\n")
    single = [rewritten[at : at + 1] for at in range(len(rewritten))]
    expected = described(decode(turn.mode, [turn.data]))
    assert described(decode(turn.mode, [rewritten])) == expected
    assert described(decode(turn.mode, single)) == expected


@given(turns)
def test_a_turn_has_one_end_and_it_comes_last(turn: Turn) -> None:
    for progress in (False, True):
        events = decode(turn.mode, [turn.data], progress=progress)
        ends = [event for event in events if isinstance(event, (TurnFinished, TurnFailed))]
        assert ends == events[-1:]


@given(plain_turns())
def test_the_answer_is_the_text_of_the_model(turn: Turn) -> None:
    events = decode(turn.mode, [turn.data])
    answer = Answer()
    answer.add(events)
    assert isinstance(events[-1], TurnFinished)
    reasoning, visible = split_whole(turn.text)
    assert (answer.text, answer.reasoning) == (visible, reasoning)


@given(turns)
def test_the_deltas_are_the_answer_unless_text_was_replaced(turn: Turn) -> None:
    events = decode(turn.mode, [turn.data])
    answer = Answer()
    answer.add(events)
    deltas = "".join(event.text for event in events if isinstance(event, TextDelta))
    last = events[-1]
    if not any(isinstance(event, TextReplaced) for event in events) and getattr(last, "answer", None) is None:
        links = [file for file in answer.files if not file.linked]
        assert answer.text == deltas or links
        reasoning = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
        assert answer.reasoning == reasoning


@given(turns)
def test_no_event_is_empty(turn: Turn) -> None:
    events = decode(turn.mode, [turn.data])
    assert all(event.text for event in events if isinstance(event, (TextDelta, ReasoningDelta)))


@given(st.data(), turns)
def test_one_read_returns_no_adjacent_deltas(data: st.DataObject, turn: Turn) -> None:
    decoder = DifyEventDecoder(turn.mode)
    for piece in data.draw(cuts(turn.data)):
        events = decoder.feed(piece)
        assert join_events(events) == events


@given(modes, st.lists(st.one_of(garbage, mistyped(), turns.map(lambda turn: turn.data)), max_size=4))
@example("chat", [b'data: {"x":' + b"[" * 100_000 + b"\n\n"])
@example("chat", [b"data: " + b"\xff" * 10 + b"\n\n"])
def test_arbitrary_bytes_end_the_turn_without_an_exception(mode: Mode, pieces: list[bytes]) -> None:
    for progress in (False, True):
        events = decode(mode, pieces, progress=progress, max_event_bytes=5000)
        assert isinstance(events[-1], (TurnFinished, TurnFailed))
        assert len([event for event in events if isinstance(event, (TurnFinished, TurnFailed))]) == 1


@given(st.data(), st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_a_frame_beyond_the_limit_ends_the_turn_at_its_beginning(data: st.DataObject, sizes: list[int]) -> None:
    """Sizes near the limit are excluded: whether line ends count depends on the split."""
    limit = 150
    frames = [stream(message("x" * size)) for size in sizes if size < 5 or size > 200]
    limit += len(stream(message("")))
    bytes_ = b"".join(frames) + stream(message_end())
    events = decode("chat", data.draw(cuts(bytes_)), max_event_bytes=limit)
    good = []
    for size in (size for size in sizes if size < 5 or size > 200):
        if size > 200:
            break
        good.append("x" * size)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "".join(good)
    assert isinstance(events[-1], TurnFinished) is (len(good) == len(frames))


@given(st.data(), garbage)
def test_frames_do_not_depend_on_the_split(data: st.DataObject, bytes_: bytes) -> None:
    def read(pieces: list[bytes]) -> tuple[list[bytes], int]:
        splitter = FrameSplitter(LIMIT)
        return [payload for piece in pieces for payload in splitter.feed(piece)], splitter.frames

    assert read(data.draw(cuts(bytes_))) == read([bytes_])
    assert read([bytes_[at : at + 1] for at in range(len(bytes_))]) == read([bytes_])
