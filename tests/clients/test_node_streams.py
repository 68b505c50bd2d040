"""The official JavaScript client reads recorded streams of every kind like the Python one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.deltas import join_chunks
from tests.recordings.archive import HANDMADE, Json, Recording, examples, refusals, streams
from tests.recordings.replay import Replay, named_files, replaying
from tests.recordings.sdk_answers import body_for, differences


async def test_streams_are_as_expected_in_javascript(node: Path, node_clients: Path) -> None:
    recordings = examples() + streams(HANDMADE) + refusals()
    async with replaying(recordings, "pieces") as replay:
        read = await read_streams(node, node_clients, replay, recordings)
    assert set(read) == {recording.label for recording in recordings}
    expected = {recording.label: recording.expected() for recording in recordings}
    found = differences(
        named_files({label: join_chunks(line["chunks"]) for label, line in read.items()}),
        named_files({label: join_chunks(expected[label]["stream"]) for label in read}),
    )
    found += differences(
        named_files({label: line["whole"] for label, line in read.items()}),
        named_files({label: helper_result(expected[label]) for label in read}),
    )
    if found:
        pytest.fail(found, pytrace=False)


def helper_result(expected: Json) -> Json:
    """Return the expected result of ``stream().finalChatCompletion()``: the joined deltas, or the error."""
    *chunks, last = expected["stream"]
    if "error" in last:
        error: Json = last
        return error
    content = "".join(chunk.get("content") or "" for chunk in chunks)
    return {"content": content, "finish_reason": chunks[-1]["finish_reason"], "usage": last["usage"]}


async def read_streams(
    node: Path, node_clients: Path, replay: Replay, recordings: list[Recording]
) -> dict[str, dict[str, Any]]:
    """Run ``read_streams.mjs`` and return its output lines, by model."""
    requests = [
        {"model": body["model"], "messages": body["messages"], **body["extra_body"]}
        for body in map(body_for, recordings)
    ]
    process = await asyncio.create_subprocess_exec(
        node,
        "read_streams.mjs",
        cwd=node_clients,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(json.dumps({"url": replay.proxy.url, "requests": requests}).encode())
    assert process.returncode == 0, errors.decode()
    text = output.decode().replace(replay.origin, "http://dify.test").strip()
    lines = [json.loads(line) for line in text.split("\n")]  # splitlines() would split at U+2028 too
    return {line["model"]: line for line in lines}
