"""Replay every recording in which an app produces a file: its links become links of ours, and the files open."""

from __future__ import annotations

import json
import re
from collections import Counter

import httpx2
import pytest
from openai import AsyncOpenAI

from tests.limits import PATIENCE
from tests.recordings.archive import VERSIONS, Json, Recording, streams
from tests.recordings.replay import MANNERS, PICTURE, Manner, replaying
from tests.recordings.sdk_answers import read_answer, read_stream, text_of

TOOL_FILE = re.compile(rb"/files/tools/([0-9a-f-]{36})\.")
OURS = re.compile(r"http://127\.0\.0\.1:\d+/artifacts/[\w-]{48}\.\w+")


def producing(*folders: str) -> list[Recording]:
    return [each for each in streams(*folders) if TOOL_FILE.search(each.body)]


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("folder", sorted({recording.folder for recording in producing()}))
async def test_produced_files_open_at_links_of_ours(folder: str, manner: Manner) -> None:
    recordings = producing(folder)

    async def read_both(client: AsyncOpenAI, recording: Recording) -> list[tuple[str, list[Json]]]:
        """Return the text and the files of the whole answer and of the stream."""
        answer, chunks = await read_answer(client, recording), await read_stream(client, recording)
        return [(answer["content"], answer["dify"]["files"]), (text_of(chunks), chunks[-2]["dify"]["files"])]

    async with replaying(recordings, manner) as replay, httpx2.AsyncClient(timeout=PATIENCE) as http:
        for label, answers in (await replay.read(read_both, recordings)).items():
            (recording,) = [each for each in recordings if each.label == label]
            assert "/files/" not in json.dumps(answers), label
            for text, files in answers:
                links = set(OURS.findall(text))
                assert {file["url"] for file in files} == links, label
                assert len(links) == len(set(TOOL_FILE.findall(recording.body))), label
                for link in links:
                    opened = await http.get(link)
                    assert (opened.status_code, opened.content) == (200, PICTURE), label
                    assert opened.headers["content-type"] == "image/png"
                    assert opened.headers["content-disposition"].startswith("inline;")


def test_table() -> None:
    """Count the recordings with produced files; the table is in ``docs/files.md``."""
    counts = Counter((recording.folder, recording.mode) for recording in producing())
    assert counts == {
        ("dify-1.11.2", "advanced-chat"): 1,
        ("dify-1.13.0", "advanced-chat"): 1,
        ("dify-1.16.1", "advanced-chat"): 1,
        ("dify-1.16.1-main-2026-08-19", "chat"): 1,
        ("dify-1.16.1-main-2026-08-19", "advanced-chat"): 1,
        ("dify-1.16.1-main-2026-08-19", "workflow"): 1,
    }
    assert {folder for folder, _ in counts} <= set(VERSIONS)
