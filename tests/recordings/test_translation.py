"""Translate every recorded answer without a socket: each frame alone, whole, and in pieces.

``test_splits`` shows that the decoder returns the same events for every split.
``test_replay`` sends a selection through the real proxy, where a recording takes a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.deltas import join_chunks
from tests.recordings.archive import HANDMADE, VERSIONS, Json, Recording, streams
from tests.recordings.replay import pieces
from tests.recordings.sdk_answers import differences
from tests.recordings.translation import translated

FOLDERS = [*VERSIONS, HANDMADE]


@pytest.mark.parametrize("folder", FOLDERS)
def test_streams_and_answers_are_as_expected(folder: str) -> None:
    """The expected side has one chunk for each delta, as for frames that arrive one at a time."""
    check({recording: translated(recording, recording.frames) for recording in streams(folder)}, lambda each: each)


@pytest.mark.parametrize("folder", FOLDERS)
def test_frames_that_arrive_together_only_merge_deltas(folder: str) -> None:
    check({recording: translated(recording, [recording.body]) for recording in streams(folder)}, joined)


@pytest.mark.parametrize("folder", FOLDERS)
def test_frames_that_arrive_in_pieces_only_merge_deltas(folder: str) -> None:
    parts = {recording: pieces(recording.body, Random(recording.label)) for recording in streams(folder)}
    check({recording: translated(recording, parts[recording]) for recording in parts}, joined)


def joined(translation: Json) -> Json:
    return {**translation, "stream": join_chunks(translation["stream"])}


def check(got: dict[Recording, Json], form: Callable[[Json], Json]) -> None:
    """Compare translations with the expected ones, both in a form."""
    found = differences(
        {recording.label: form(translation) for recording, translation in got.items()},
        {recording.label: form(recording.expected()) for recording in got},
    )
    if found:
        pytest.fail(found, pytrace=False)
