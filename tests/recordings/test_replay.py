"""Replay recorded answers of every kind through the real proxy and read them with the official Python client.

``test_translation`` translates all recordings without a socket.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx2
import pytest

from tests.deltas import join_chunks
from tests.limits import PATIENCE
from tests.recordings.archive import VERSIONS, Json, Recording, examples, refusals, streams
from tests.recordings.replay import MANNERS, Manner, Replay, named_files, replaying
from tests.recordings.sdk_answers import (
    differences,
    read_answer,
    read_bytes,
    read_helper,
    read_stream,
    read_text,
    text_of,
    uploaded_files,
)

SMALL = 4_000
"""The largest body, in bytes, that is sent byte by byte here; ``test_splits`` feeds all bodies so to the decoder."""


@pytest.mark.parametrize("folder", VERSIONS)
@pytest.mark.parametrize("manner", MANNERS)
async def test_streams_are_as_expected(folder: str, manner: Manner) -> None:
    recordings = examples(folder)
    if manner == "bytes":
        recordings = [each for each in recordings if len(each.body) < SMALL]
    async with replaying(recordings, manner) as replay:
        got = await replay.read_json(read_stream, recordings)
    check_same(
        {label: join_chunks(chunks) for label, chunks in got.items()},
        {recording.label: join_chunks(recording.expected()["stream"]) for recording in recordings},
    )


@pytest.mark.parametrize("folder", VERSIONS)
async def test_whole_answers_are_as_expected(folder: str) -> None:
    recordings = examples(folder)
    async with replaying(recordings) as replay:
        answers = await replay.read_json(read_answer, recordings)
        texts = await replay.read_json(read_text, recordings)
        helped = await replay.read_json(read_helper, recordings)
    check_same(answers, {recording.label: recording.expected()["answer"] for recording in recordings})
    for label, answer in answers.items():
        check_text(texts[label], answer, label)
        check_text(helped[label], answer, label)
    for recording in recordings:
        check_request(recording, *replay.dify.requests[recording.label])


@pytest.mark.parametrize("folder", VERSIONS)
def test_an_expected_stream_joins_to_the_expected_answer(folder: str) -> None:
    for recording in streams(folder):
        expected = recording.expected()
        *chunks, last = expected["stream"]
        answer = expected["answer"]
        if "error" in last:
            assert answer["error"] == last["error"], recording.label
            continue
        assert last == {"usage": answer["usage"]}, recording.label
        assert chunks[-1] == {"finish_reason": answer["finish_reason"], "dify": answer["dify"]}, recording.label
        assert text_of(chunks) == answer["content"], recording.label
        assert "".join(chunk.get("reasoning_content", "") for chunk in chunks) == answer.get("reasoning_content", "")


@pytest.mark.parametrize("folder", VERSIONS)
@pytest.mark.parametrize("usage", [True, False])
async def test_frames_have_the_exact_form_that_clients_expect(folder: str, usage: bool) -> None:
    recordings = examples(folder)
    async with replaying(recordings, "pieces") as replay:
        responses = await read_all_bytes(replay, recordings, usage=usage)
    for label, response in responses.items():
        if response.status_code == 200:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert response.headers["cache-control"] == "no-cache, no-transform"
            check_frames(response.content, label, usage=usage)
            check_ids(response, label)
        else:
            check_refusal(response, label)


@pytest.mark.parametrize("folder", VERSIONS)
async def test_refusals_are_as_expected(folder: str) -> None:
    recordings = refusals(folder)
    async with replaying(recordings) as replay:
        got = await replay.read_json(read_stream, recordings)
        answers = await replay.read_json(read_answer, recordings)
        responses = await read_all_bytes(replay, recordings, usage=True)
    check_same(got, {recording.label: recording.expected()["stream"] for recording in recordings})
    check_same(answers, {recording.label: recording.expected()["answer"] for recording in recordings})
    for recording in recordings:
        assert got[recording.label] == [answers[recording.label]], (
            f"{recording.label}: streamed and plain refusals differ"
        )
        check_refusal(responses[recording.label], recording.label)


def test_table() -> None:
    """Count the replayed streams by mode and version; ``scripts/test -k test_table -s`` prints the table."""
    counts = Counter((recording.folder, recording.mode) for recording in streams())
    modes = sorted({mode for _, mode in counts})
    lines = [f"{'streams':<18}" + "".join(f"{mode:>15}" for mode in (*modes, "all", "refusals"))]
    for folder in VERSIONS:
        row = [counts[folder, mode] for mode in modes]
        lines.append(f"{folder:<18}" + "".join(f"{count:>15}" for count in (*row, sum(row), len(refusals(folder)))))
    row = [sum(counts[folder, mode] for folder in VERSIONS) for mode in modes]
    lines.append(f"{'all':<18}" + "".join(f"{count:>15}" for count in (*row, sum(row), len(refusals()))))
    print("\n" + "\n".join(lines))  # noqa: T201 - the test prints the table
    assert set(modes) == {"chat", "agent-chat", "advanced-chat", "completion", "workflow", "agent"}
    assert sum(counts.values()) == 421


async def read_all_bytes(replay: Replay, recordings: list[Recording], *, usage: bool) -> dict[str, httpx2.Response]:
    async with httpx2.AsyncClient(timeout=PATIENCE, base_url=replay.proxy.url) as http:
        return await replay.read(lambda _openai, recording: read_bytes(http, recording, usage=usage), recordings)


def check_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    if found := differences(got, named_files(expected)):
        pytest.fail(found, pytrace=False)


def check_text(text: Json, answer: Json, label: str) -> None:
    """Check that the legacy route, or the client's helper, returns the same text and finish reason."""
    for name in ("error", "finish_reason"):
        assert text.get(name) == answer.get(name), label
    if "error" not in text and not answer["dify"].get("replaced"):
        assert text["content"] == answer["content"], label


def check_request(recording: Recording, path: str, body: Json) -> None:
    """Check that the proxy sent the recorded question, streaming, and requested no conversation title."""
    recorded = recording.request_json
    assert path == recording.request["path"], recording.label
    assert body["response_mode"] == "streaming"
    inputs = {name: "" if value is None else value for name, value in (recorded.get("inputs") or {}).items()}
    assert body["inputs"] == inputs, recording.label
    if path == "/chat-messages":
        assert body["auto_generate_name"] is False
        assert body["query"] == recorded.get("query", "hello"), recording.label
        assert body.get("conversation_id") == (recorded.get("conversation_id") or None), recording.label
        assert body.get("files", []) == uploaded_files(recording), recording.label


def check_frames(raw: bytes, model: str, *, usage: bool) -> None:
    """Check the frames: LF only, the role first, one finish reason, then ``[DONE]``; or an error and neither."""
    assert b"\r" not in raw, model
    assert raw.endswith(b"\n\n"), model
    frames = raw[:-2].split(b"\n\n")
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames), model
    if frames[-1] == b"data: [DONE]":
        chunks = [json.loads(frame[6:]) for frame in frames[:-1]]
        if usage:
            *chunks, last = chunks
            assert last["choices"] == [], model
            assert last["usage"]["total_tokens"] >= last["usage"]["prompt_tokens"], model
            check_heads([last], model, chunks[0]["id"])
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
        assert reasons[-1] in ("stop", "length", "content_filter"), model
        assert not any(reasons[:-1]), model
    else:
        *chunks, last = [json.loads(frame[6:]) for frame in frames]
        check_error(last, model)
        assert not any(chunk["choices"][0]["finish_reason"] for chunk in chunks), model
    check_heads(chunks, model, chunks[0]["id"])
    for chunk in chunks:
        (choice,) = chunk["choices"]
        assert choice["index"] == 0
        assert (chunk["usage"] is None) if usage else ("usage" not in chunk), model
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}, model
    assert not any("role" in chunk["choices"][0]["delta"] for chunk in chunks[1:]), model


def check_ids(response: httpx2.Response, label: str) -> None:
    """Check that the headers name the same conversation and message as the end of the stream."""
    frames = response.content.split(b"\n\n")
    if frames[-2] == b"data: [DONE]":
        ids = next(chunk["dify"] for chunk in map(json.loads, (frame[6:] for frame in frames[:-2])) if "dify" in chunk)
        for header, name in (("x-dify-conversation-id", "conversation_id"), ("x-dify-message-id", "message_id")):
            assert response.headers.get(header) == ids.get(name), (label, header)


def check_heads(chunks: list[Json], model: str, stream_id: str) -> None:
    """Check that all chunks have the stream's id, its time in whole seconds, and the requested model."""
    assert stream_id.startswith("chatcmpl-")
    assert {chunk["id"] for chunk in chunks} == {stream_id}, model
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}, model
    assert {chunk["model"] for chunk in chunks} == {model}
    assert len({chunk["created"] for chunk in chunks}) == 1, model
    assert type(chunks[0]["created"]) is int, model


def check_refusal(response: httpx2.Response, label: str) -> None:
    assert response.status_code >= 400, label
    assert response.headers["content-type"] == "application/json", label
    assert response.headers["x-request-id"], label
    if response.status_code >= 500 or response.status_code == 429:
        # A retry costs money again or fails again, except after a limit on concurrent requests.
        again = "retry-after" in response.headers
        assert again or response.headers["x-should-retry"] == "false", label
    check_error(response.json(), label)


def check_error(body: Json, label: str) -> None:
    assert list(body) == ["error"], label
    assert list(body["error"]) == ["message", "type", "param", "code"], label
    assert body["error"]["message"], label
    assert label not in body["error"]["message"], f"{label}: the label is part of the key, which must not be shown"
    assert "Bearer " not in body["error"]["message"].replace("start with 'Bearer'", ""), label
