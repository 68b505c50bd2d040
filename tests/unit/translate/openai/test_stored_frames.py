from __future__ import annotations

import pytest

from openai_dify_proxy.errors import InternalError
from openai_dify_proxy.events import Citations, TextDelta, TurnFailed, TurnFinished, TurnIds
from openai_dify_proxy.translate.openai.stored_frames import StoredFrames
from tests.unit.translate.openai.test_responses_streams import HELLO, encoder

DATA = b"".join(HELLO)
"""Ten events and ``[DONE]``."""


def feed(frames: StoredFrames, data: bytes, size: int) -> bytes:
    return b"".join(frames.feed(data[begin : begin + size]) for begin in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 2, 7, 100, 255, 256, 257, 1000, 100_000])
def test_a_stream_can_be_resumed_after_any_number(size: int) -> None:
    assert feed(StoredFrames(), DATA, size) == DATA
    for number in range(-1, 11):
        frames = StoredFrames(number)
        assert feed(frames, DATA, size) == b"".join(HELLO[min(number + 1, 10) :])
        assert (frames.number, frames.ended, frames.within_frame) == (10, True, False)


def test_nothing_is_read_of_nothing() -> None:
    frames = StoredFrames(3)
    assert frames.feed(b"") == b""
    assert (frames.number, frames.ended, frames.within_frame) == (0, False, False)


@pytest.mark.parametrize("size", [1, 100_000])
def test_the_stream_of_a_failed_response_has_no_done(size: int) -> None:
    stream = encoder()
    data = stream.encode([TextDelta("Hel"), TurnFailed(InternalError("x"))], TurnIds())
    before, _, failed = data.rpartition(b"event: response.failed\n")
    frames = StoredFrames()
    feed(frames, before, size)
    assert not frames.ended
    feed(frames, b"event: response.failed\n" + failed, size)
    assert frames.ended


def test_a_long_frame_is_passed_on_as_it_is_read() -> None:
    stream = encoder()
    data = stream.encode([TextDelta("x" * 100_000), Citations(()), TurnFinished("stop")], TurnIds())
    frames = StoredFrames(1)
    for begin in range(0, len(data), 1000):
        assert len(frames.feed(data[begin : begin + 1000])) <= 1256
        assert len(frames._unread) < 256
    assert frames.ended


def test_numbers_within_an_event_do_not_count() -> None:
    begin = b'event: response.created\ndata: {"type":"response.created","sequence_number":0,'
    frame = begin + b'"response":{"metadata":{"sequence_number":7}}}\n\n'
    frames = StoredFrames(5)
    assert frames.feed(frame) == b""
    assert frames.number == 1
