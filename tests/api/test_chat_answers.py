"""The content of answers, with and without streaming: reasoning, moderation, citations, files, stop sequences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import MODELS, MODES, Json, turns, user
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer, app_settings

THOUGHT = "Let me read the message.\nI will repeat it & say <b>who</b> I am."


@dataclass
class Answer:
    """An answer, streamed or not; ``annotations`` and ``dify`` are JSON."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    annotations: list[Json] = field(default_factory=list)
    dify: Json = field(default_factory=dict)


async def get(client: AsyncOpenAI, model: str, text: str, *, stream: bool, **more: Any) -> Answer:
    answer = Answer()
    if not stream:
        completion = (await client.chat.completions.create(model=model, messages=user(text), **more)).model_dump(
            exclude_unset=True
        )
        choice = completion["choices"][0]
        message = choice["message"]
        assert message["role"] == "assistant"
        assert message["refusal"] is None
        assert "tool_calls" not in message
        return Answer(
            message["content"],
            message.get("reasoning_content", ""),
            choice["finish_reason"],
            message["annotations"],
            completion["dify"],
        )
    async for chunk in await client.chat.completions.create(model=model, messages=user(text), stream=True, **more):
        plain = chunk.model_dump(exclude_unset=True)
        delta = plain["choices"][0]["delta"]
        answer.text += delta.get("content") or ""
        answer.reasoning += delta.get("reasoning_content", "")
        answer.annotations += delta.get("annotations", [])
        answer.finish_reason = plain["choices"][0]["finish_reason"] or answer.finish_reason
        answer.dify |= plain.get("dify", {})
    return answer


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@both_ways
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("word", ["THINK", "THINK:separated"])
async def test_thinking_is_reasoning_and_not_part_of_the_answer(
    client: AsyncOpenAI, model: str, word: str, stream: bool
) -> None:
    answer = await get(client, model, f"SAY<<the answer>> {word}", stream=stream)
    assert answer.text == "the answer"
    assert answer.reasoning.strip() == THOUGHT
    assert answer.finish_reason == "stop"


@both_ways
@pytest.mark.parametrize("model", ["demo-chat@1.11", "demo-completion@1.13", "demo-advanced-chat@1.16"])
async def test_a_moderated_answer_is_replaced(client: AsyncOpenAI, model: str, stream: bool) -> None:
    answer = await get(client, model, "SAY<<something bad>> MODERATE", stream=stream)
    assert answer.finish_reason == "content_filter"
    assert answer.dify["replaced"] is True
    if stream:
        assert answer.text == "something bad\n\nThis answer was withheld."
    else:
        assert answer.text == "This answer was withheld."


@both_ways
@pytest.mark.parametrize("model", ["demo-advanced-chat@1.13", "demo-workflow@1.13", "demo-workflow@1.16"])
async def test_a_paused_workflow_answers_with_the_text_of_its_form(
    client: AsyncOpenAI, model: str, stream: bool
) -> None:
    answer = await get(client, model, "SAY<<so far>> PAUSE", stream=stream)
    assert answer.text.startswith("so far\n\n")
    for shown in ("May I continue?", "Yes", "No"):
        assert shown in answer.text
    assert answer.finish_reason == "stop"


@both_ways
@pytest.mark.parametrize(
    "model", ["demo-chat@1.11", "demo-chat@1.16", "demo-advanced-chat@1.13", "demo-advanced-chat@1.16"]
)
async def test_citations_with_a_url_are_annotations(client: AsyncOpenAI, model: str, stream: bool) -> None:
    answer = await get(client, model, "SAY<<as the handbook says>> CITE", stream=stream)
    (annotation,) = answer.annotations
    assert annotation["type"] == "url_citation"
    assert annotation["url_citation"] == {
        "url": "https://example.com/handbook",
        "title": "Handbook",
        "start_index": 0,
        "end_index": len("as the handbook says"),
    }
    assert [passage["document_name"] for passage in answer.dify["retriever_resources"]] == ["Handbook", "notes.txt"]
    assert answer.text == "as the handbook says"


@both_ways
@pytest.mark.parametrize("model", MODELS)
async def test_a_generated_file_is_linked_once_and_listed(
    client: AsyncOpenAI, proxy: ProxyServer, model: str, stream: bool
) -> None:
    answer = await get(client, model, "SAY<<look>> FILE", stream=stream)
    (file,) = answer.dify["files"]
    assert file["type"] == "image"
    assert file["url"].startswith(f"{proxy.origin}/artifacts/")
    assert answer.text.count(file["url"]) == 1
    assert "look" in answer.text
    assert "](" in answer.text


@both_ways
@pytest.mark.parametrize("word", ["RETRY", "PARTIAL"])
@pytest.mark.parametrize("model", ["demo-advanced-chat@1.11", "demo-advanced-chat@1.16", "demo-workflow@1.13"])
async def test_retried_and_partially_failed_nodes_do_not_duplicate_text(
    client: AsyncOpenAI, model: str, word: str, stream: bool
) -> None:
    answer = await get(client, model, f"SAY<<one two three four five six>> {word}", stream=stream)
    assert answer.text == "one two three four five six"
    assert answer.finish_reason == "stop"


@both_ways
@pytest.mark.parametrize("model", ["demo-chat@1.11", "demo-advanced-chat@1.13", "demo-advanced-chat@1.16"])
async def test_an_annotation_reply_is_an_answer(client: AsyncOpenAI, model: str, stream: bool) -> None:
    answer = await get(client, model, "SAY<<from an annotation>> ANNOTATION", stream=stream)
    assert (answer.text, answer.finish_reason) == ("from an annotation", "stop")


@both_ways
async def test_prices_and_ids_are_in_the_dify_object(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    answer = await get(client, "demo-chat", "hi", stream=stream)
    (run,) = log.runs
    assert answer.dify["usage"]["currency"] == "USD"
    assert float(answer.dify["usage"]["total_price"]) > 0
    assert (answer.dify["conversation_id"], answer.dify["message_id"], answer.dify["task_id"]) == (
        run.conversation_id,
        run.message_id,
        run.task_id,
    )


@both_ways
@pytest.mark.parametrize(
    "step", ["demo-agent-chat: current_time", "demo-agent: shell_run", "demo-advanced-chat: Model"]
)
async def test_progress_shows_only_titles_and_states_and_only_if_enabled(
    serve: Serve, demo: DemoServer, log: DemoLog, step: str, stream: bool
) -> None:
    model, title = step.split(": ")
    key = f"app-{model}"
    apps = {
        "loud": app_settings("loud", key, demo.url, progress="reasoning"),
        "quiet": app_settings("quiet", key, demo.url),
    }
    async with serve(apps=apps).client() as client:
        loud = await get(client, "loud", "SAY<<done>> TOOL", stream=stream)
        quiet = await get(client, "quiet", "SAY<<done>> TOOL", stream=stream)
    assert loud.text == quiet.text == "done"
    assert quiet.reasoning == ""
    assert f"→ {title}\n✓ {title}\n" in loud.reasoning
    for content in ("system prompt", "2026-01-02", "date", "script", "done"):
        assert content not in loud.reasoning


# Stop sequences


@both_ways
@pytest.mark.parametrize("model", MODELS)
async def test_a_stop_sequence_truncates_the_answer_and_stops_the_run(
    client: AsyncOpenAI, log: DemoLog, model: str, stream: bool
) -> None:
    """The sequence spans pieces, and the run would take another six seconds."""
    answer = await get(client, model, "SAY<<one two three>> SLOW:1x50", stream=stream, stop=["never", "o th"])
    assert (answer.text, answer.finish_reason) == ("one tw", "stop")
    slow = await get(client, model, "SLOW:300x20", stream=stream, stop="tick 3")
    assert (slow.text, slow.finish_reason) == ("tick 1 tick 2 ", "stop")
    await log.wait_for(lambda log: log.runs[-1].state == "stopped")
    run = log.runs[-1]
    (stop,) = (stop for stop in log.stops if stop.task_id == run.task_id)
    assert (stop.user, stop.effective) == (run.user, True)


@both_ways
async def test_a_stop_sequence_that_does_not_occur_changes_nothing(
    client: AsyncOpenAI, log: DemoLog, stream: bool
) -> None:
    answer = await get(client, "demo-chat", "SAY<<one two thr>>", stream=stream, stop=["three", "", "one two thr!"])
    assert (answer.text, answer.finish_reason) == ("one two thr", "stop")
    assert not log.stops


# Legacy completions


@pytest.mark.parametrize("model", MODES)
@pytest.mark.parametrize("prompt", ["SAY<<hello\nworld>>", ["SAY<<hello\nworld>>"]])
async def test_a_legacy_completion_has_openais_shape(
    client: AsyncOpenAI, log: DemoLog, model: str, prompt: Any
) -> None:
    whole = await client.completions.create(model=model, prompt=prompt, max_tokens=1, echo=True, suffix="x")
    assert whole.object == "text_completion"
    assert whole.id.startswith("cmpl-")
    (choice,) = whole.choices
    assert (choice.text, choice.index, choice.finish_reason) == ("hello\nworld", 0, "stop")
    assert whole.usage is not None
    assert whole.usage.total_tokens > 0
    stream = await client.completions.create(
        model=model, prompt=prompt, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *parts, usage = chunks
    assert "".join(part.choices[0].text for part in parts) == "hello\nworld"
    reasons: list[Any] = [part.choices[0].finish_reason for part in parts]
    assert reasons == [None] * (len(parts) - 1) + ["stop"]
    assert usage.choices == []
    assert usage.usage is not None
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert len(turns(log)) == 2


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
    ],
)
async def test_unsupported_legacy_requests_are_rejected(
    client: AsyncOpenAI, log: DemoLog, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model="demo-chat", **more)
    assert refused.value.param == param
    assert not log.requests


async def test_a_legacy_stream_fails_like_a_chat_stream(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="demo-chat", prompt="one two three four five MIDERROR:rate", stream=True
    )
    with pytest.raises(openai.APIError) as failed:
        async for _ in stream:
            pass
    assert failed.value.code == "rate_limit_exceeded"
