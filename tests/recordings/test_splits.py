"""The decoder returns the same events wherever a recording is split. Without sockets, all recordings can be tried."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any, cast

import pytest

from openai_dify_proxy.events import Event, TurnFailed
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.wire.dify import Mode
from tests.recordings.archive import HANDMADE, VERSIONS, Recording, streams
from tests.recordings.replay import pieces


def decode(recording: Recording, parts: Iterable[bytes]) -> list[Any]:
    decoder = DifyEventDecoder(cast(Mode, recording.mode), origin="http://dify.test", progress=True)
    events: list[Event] = []
    for part in parts:
        events += decoder.feed(part)
    events += decoder.finish()
    assert decoder.ended
    return [*map(comparable, events), decoder.ids]


def comparable(event: Event) -> object:
    """Make failures comparable: exceptions are equal only to themselves."""
    if isinstance(event, TurnFailed):
        error = event.error
        return type(error), error.message, error.param, error.code, error.started
    return event


@pytest.mark.parametrize("folder", [*VERSIONS, HANDMADE])
def test_splits_change_nothing(folder: str) -> None:
    for recording in streams(folder):
        body = recording.body
        whole = decode(recording, [body])
        assert decode(recording, (body[index : index + 1] for index in range(len(body)))) == whole, recording.label
        assert decode(recording, pieces(body, Random(recording.name))) == whole, recording.label
        half = len(body) // 2
        assert decode(recording, [body[:half], b"", body[half:]]) == whole, recording.label


@pytest.mark.parametrize("folder", VERSIONS)
def test_a_truncated_stream_is_never_complete(folder: str) -> None:
    """Before a terminal event, the end of the bytes is a failure."""
    for recording in streams(folder):
        ends = [recording.body.find(name) for name in (b'"message_end"', b'"workflow_', b'"error"')]
        first = min((end for end in ends if end >= 0), default=len(recording.body))
        *_, last, _ids = decode(recording, [recording.body[:first]])
        assert last[0].__name__ == "StreamCut", recording.label
