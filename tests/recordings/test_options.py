"""App settings and request fields change how a recorded stream is read."""

from __future__ import annotations

import pytest

from tests.recordings.archive import VERSIONS, Recording, examples, named
from tests.recordings.replay import named_files, replaying
from tests.recordings.sdk_answers import body_for, read_answer, read_stream, text_of


@pytest.mark.parametrize("folder", VERSIONS[:3])
@pytest.mark.parametrize("variable", ["first", "second", "q"])
async def test_an_output_can_be_named_as_the_answer(folder: str, variable: str) -> None:
    stream = named(folder, "workflow-multi-stream")
    (finished,) = stream.events_named("workflow_finished")
    async with replaying([stream], "pieces", output_variable=variable) as replay:
        (chunks,) = (await replay.read_json(read_stream, [stream])).values()
        (answer,) = (await replay.read_json(read_answer, [stream])).values()
    assert text_of(chunks) == answer["content"] == finished["data"]["outputs"][variable]


@pytest.mark.parametrize("folder", VERSIONS)
async def test_progress_lists_titles_and_states_and_changes_no_text(folder: str) -> None:
    recordings = [stream for stream in examples(folder) if stream.mode not in ("chat", "completion")]
    async with replaying(recordings, progress="reasoning") as replay:
        read = await replay.read_json(read_stream, recordings)
    all_expected = named_files({recording.label: recording.expected()["stream"] for recording in recordings})
    for recording in recordings:
        expected = all_expected[recording.label]
        assert text_of(read[recording.label]) == text_of(expected), recording.label
        lines = reasoning(read[recording.label]).splitlines()
        assert set(lines) <= titles(recording) | set(reasoning(expected).splitlines()), recording.label
    shown = sum(bool(reasoning(read[recording.label])) for recording in recordings)
    assert shown >= len(recordings) // 2


def reasoning(chunks: list[dict[str, str]]) -> str:
    return "".join(chunk.get("reasoning_content", "") for chunk in chunks)


def titles(recording: Recording) -> set[str]:
    """Return every possible progress line: a mark, and the title of a node or the name of a tool."""
    names = {event["data"].get("title") for event in recording.events() if "data" in event}
    names |= {event["tool"] for event in recording.events_named("agent_thought")}
    return {f"{mark} {name}" for mark in "→✓✗↻" for name in names if name}


@pytest.mark.parametrize("folder", VERSIONS[:3])
@pytest.mark.parametrize("name", ["stop-chat-otheruser", "workflow-llm-stream", "chatflow-long-stream"])
async def test_a_stop_sequence_cuts_the_answer(folder: str, name: str) -> None:
    stream = named(folder, name)
    whole = text_of(stream.expected()["stream"])
    sequence = whole[len(whole) // 2 :][:9]
    async with replaying([stream], "pieces") as replay, replay.proxy.client() as client:
        chunks = await client.chat.completions.create(**body_for(stream), stop=[sequence, "§"], stream=True)
        read = [chunk.choices[0] async for chunk in chunks]
        answer = await client.chat.completions.create(**body_for(stream), stop=sequence)
    before = whole.partition(sequence)[0]
    assert before
    assert "".join(choice.delta.content or "" for choice in read) == before
    assert read[-1].finish_reason == "stop"
    assert answer.choices[0].message.content == before
