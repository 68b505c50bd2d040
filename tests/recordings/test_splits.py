"""Wherever a recording is split, each read returns the events that it completes. Without sockets, all can be tried."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import accumulate
from random import Random
from typing import cast

import pytest

from openai_dify_proxy.errors import StreamCut
from openai_dify_proxy.events import Event, TurnFailed
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.wire.dify import Mode
from tests.deltas import join_events
from tests.recordings.archive import HANDMADE, VERSIONS, Recording, streams
from tests.recordings.replay import pieces


class Decoded:
    """The events of each read, those after the last read, and the ids."""

    def __init__(self, recording: Recording, parts: Iterable[bytes]) -> None:
        decoder = DifyEventDecoder(cast(Mode, recording.mode), origin="http://dify.test", progress=True)
        self.reads = [decoder.feed(part) for part in parts]
        self.rest = decoder.finish()
        self.ids = decoder.ids
        assert decoder.ended


def comparable(events: Iterable[Event]) -> list[object]:
    """Make failures comparable: exceptions are equal only to themselves."""
    return [
        (type(error := event.error), error.message, error.param, error.code, error.started)
        if isinstance(event, TurnFailed)
        else event
        for event in events
    ]


def reads_of(parts: Iterable[bytes], frames: Iterable[bytes], events: Iterable[list[Event]]) -> Iterator[list[Event]]:
    """Yield the events that each part completes, adjacent deltas joined; ``events`` are those of each frame."""
    rest = deque(zip(accumulate(map(len, frames)), events, strict=True))
    for end in accumulate(map(len, parts)):
        completed: list[Event] = []
        while rest and rest[0][0] <= end:
            completed += rest.popleft()[1]
        yield join_events(completed)


SMALL = 2000
"""Bytes; of larger recordings, only the edges of frames are split into single bytes."""


def split_at_edges(frames: Iterable[bytes]) -> list[bytes]:
    """Return single bytes for the first 8 and the last 4 of each frame, and the bytes between them as one part."""
    parts = []
    for frame in frames:
        start, end = 8, max(8, len(frame) - 4)
        single = [frame[index : index + 1] for index in (*range(min(start, len(frame))), *range(end, len(frame)))]
        parts += [*single[:start], frame[start:end], *single[start:]]
    return parts


@pytest.mark.parametrize("folder", [*VERSIONS, HANDMADE])
def test_splits_change_nothing(folder: str) -> None:
    for recording in streams(folder):
        body, frames = recording.body, recording.frames
        alone = Decoded(recording, frames)
        half = len(body) // 2
        for parts in (
            [body],
            [body[index : index + 1] for index in range(len(body))] if len(body) < SMALL else split_at_edges(frames),
            list(pieces(body, Random(recording.name))),
            [body[:half], b"", body[half:]],
        ):
            decoded = Decoded(recording, parts)
            expected = reads_of(parts, frames, alone.reads)
            assert [*map(comparable, decoded.reads)] == [*map(comparable, expected)], recording.label
            assert comparable(decoded.rest) == comparable(alone.rest), recording.label
            assert decoded.ids == alone.ids, recording.label


@pytest.mark.parametrize("folder", VERSIONS)
def test_a_truncated_stream_is_never_complete(folder: str) -> None:
    """Before a terminal event, the end of the bytes is a failure."""
    for recording in streams(folder):
        ends = [recording.body.find(name) for name in (b'"message_end"', b'"workflow_', b'"error"')]
        first = min((end for end in ends if end >= 0), default=len(recording.body))
        last = Decoded(recording, [recording.body[:first]]).rest[-1]
        assert isinstance(last, TurnFailed), recording.label
        assert isinstance(last.error, StreamCut), recording.label
