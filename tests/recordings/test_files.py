"""The recordings with files, pictures and sound, as ``docs/files.md`` counts them. ``test_replay`` replays them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recordings.archive import VERSIONS, Recording, recordings

DOCS = Path(__file__).parents[2] / "docs" / "files.md"
SOUND = ("/audio-to-text", "/text-to-audio")


def sends_files(recording: Recording) -> bool:
    """Return whether a request that runs an app has files, in ``files`` or in an input."""
    request = recording.request_json
    values = [request.get("files"), *(request.get("inputs") or {}).values()]
    return recording.generates and any('"transfer_method"' in str(value).replace("'", '"') for value in values)


def produces_files(recording: Recording) -> bool:
    return recording.is_stream and b"/files/tools/" in recording.body


def has_sound(recording: Recording) -> bool:
    return recording.request["path"] in SOUND or (recording.is_stream and b'"tts_message"' in recording.body)


def row(folder: str) -> str:
    found = recordings(folder)
    counts = [sum(map(counted, found)) for counted in (sends_files, produces_files, has_sound)]
    return f"| {folder.removeprefix('dify-')} | {' | '.join(str(count or '–') for count in counts)} |"


@pytest.mark.parametrize("folder", VERSIONS)
def test_the_docs_count_the_recordings(folder: str) -> None:
    assert row(folder) in DOCS.read_text(encoding="utf-8").splitlines()
