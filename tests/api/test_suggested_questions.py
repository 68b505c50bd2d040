"""Questions that Dify suggests after an answer: ``suggested_questions`` in the body, ``dify`` in the answer."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import Json, ask, user
from tests.api.response_requests import respond, stream_of
from tests.api.servers import ProxyServer

ASKED: Json = {"suggested_questions": True}
QUESTIONS = ["What is next?", "Why so?", "Who says?"]
SUGGESTING = ["demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-chat@1.11", "demo-advanced-chat@1.13"]
SILENT = ["demo-agent", "demo-workflow", "demo-completion"]


def dify_of(answer: Any) -> Json:
    found: Json = (answer.model_extra or {})["dify"]
    return found


async def complete(client: AsyncOpenAI, model: str, text: str, **more: Any) -> Json:
    """Return the ``dify`` object of a whole answer."""
    return dify_of(await client.chat.completions.create(model=model, messages=user(text), **more))


def calls(log: DemoLog) -> int:
    return sum(request.path.endswith("/suggested") for request in log.requests)


@pytest.mark.parametrize("model", SUGGESTING)
async def test_every_kind_of_answer_carries_them(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, model: str
) -> None:
    assert (await complete(client, model, "Hello", extra_body=ASKED))["suggested_questions"] == QUESTIONS
    stream = await client.chat.completions.create(model=model, messages=user("Hello"), stream=True, extra_body=ASKED)
    chunks = [chunk async for chunk in stream]
    assert [dify_of(chunk).get("suggested_questions") for chunk in chunks if chunk.choices[0].finish_reason] == [
        QUESTIONS
    ]
    assert dify_of(await respond(client, "Hello", model, extra_body=ASKED))["suggested_questions"] == QUESTIONS
    events = await stream_of(http, proxy, "Hello", model, **ASKED)
    assert events[-1]["response"]["dify"]["suggested_questions"] == QUESTIONS


async def test_nothing_is_asked_without_the_field(client: AsyncOpenAI, log: DemoLog) -> None:
    for body in ({}, {"suggested_questions": False}):
        assert "suggested_questions" not in await complete(client, "demo-chat", "Hello", extra_body=body)
    assert not calls(log)


@pytest.mark.parametrize("model", SILENT)
async def test_the_field_is_named_if_the_app_suggests_none(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    await ask(client, model, "Hello")  # the app is known from its first turn on
    raw = await client.chat.completions.with_raw_response.create(model=model, messages=user("Hello"), extra_body=ASKED)
    assert raw.headers["x-unsupported-parameters"] == "suggested_questions"
    assert "suggested_questions" not in dify_of(raw.parse())
    assert not calls(log)


async def test_a_reply_that_was_cut_has_none(client: AsyncOpenAI, log: DemoLog) -> None:
    assert "suggested_questions" not in await complete(client, "demo-chat", "SLOW:50x20", stop=["3"], extra_body=ASKED)
    assert not calls(log)
