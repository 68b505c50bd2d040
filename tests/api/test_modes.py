"""All app modes in all versions of Dify, with and without streaming, and the detection of the mode."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import MODELS, MODES, ask, ask_streaming, probes, the_turn, user
from tests.api.conftest import Serve

PATHS = {
    "demo-completion": "/v1/completion-messages",
    "demo-workflow": "/v1/workflows/run",
}
OLD = [f"{name}@0.15" for name in MODES if name != "demo-agent"]
TEXT = 'Line one\n\ttwo, 三\u2028four 👋🏽 \\u "quoted" </think>'


@pytest.mark.parametrize("model", [*OLD, *MODELS])
async def test_every_mode_answers_with_its_exact_text(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    text = TEXT.removesuffix(" </think>")
    assert await ask(client, model, f"SAY<<{text}>>") == text
    assert await ask_streaming(client, model, f"SAY<<{text}>>") == text
    assert [run.answer for run in log.runs] == [text, text]
    assert {run.dialect for run in log.runs} == {model.partition("@")[2]}
    assert all(run.streaming for run in log.runs)


@pytest.mark.parametrize("model", [*OLD, *MODELS])
async def test_every_mode_is_called_at_its_own_route(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    name = model.partition("@")[0]
    assert f"demo {name.removeprefix('demo-')} app" in await ask(client, model, "hi")
    assert the_turn(log).path == PATHS.get(name, "/v1/chat-messages")


@pytest.mark.parametrize("model", [*OLD, *MODELS])
async def test_long_and_empty_answers_are_complete(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    assert len(await ask_streaming(client, model, "LONG:20000")) == 20000
    assert await ask(client, model, "LONG:20000") == log.runs[0].answer
    assert await ask_streaming(client, model, "EMPTY") == ""


@pytest.mark.parametrize("name", [name for name in MODES if name != "demo-agent"])
async def test_the_mode_of_an_old_dify_is_detected_once(serve: Serve, log: DemoLog, name: str) -> None:
    proxy = serve()
    async with proxy.client() as client:
        for _ in range(2):
            assert f"demo {name.removeprefix('demo-')} app" in await ask(client, f"{name}@0.15", "hi")
    assert 1 <= len(probes(log)) <= 2
    assert len(log.runs) == 2
    assert [request.path for request in log.requests].count("/v1/info") == 1


@pytest.mark.parametrize("model", MODELS)
async def test_usage_and_ids_come_from_dify(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    completion = await client.chat.completions.create(model=model, messages=user("one two three"))
    (run,) = log.runs
    dify = (completion.model_extra or {})["dify"]
    assert dify["task_id"] == run.task_id
    if run.mode != "workflow":
        assert dify["message_id"] == run.message_id
    if run.mode not in ("workflow", "completion"):
        assert dify["conversation_id"] == run.conversation_id
    if run.workflow_run_id:
        assert dify["workflow_run_id"] == run.workflow_run_id
    usage = completion.usage
    assert usage is not None
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
