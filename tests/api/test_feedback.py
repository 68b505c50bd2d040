"""``POST /v1/feedback``: ratings of answers in Dify."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx2
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import CONVERSING, Json, error_of, user
from tests.api.servers import ProxyServer


async def answered(client: AsyncOpenAI, model: str, **more: Any) -> str:
    """Return Dify's id of a new answer."""
    answer = await client.chat.completions.create(model=model, messages=user("Hello"), **more)
    name: str = (answer.model_extra or {})["dify"]["message_id"]
    return name


async def rate(http: httpx2.AsyncClient, proxy: ProxyServer, **body: Any) -> httpx2.Response:
    return await http.post(f"{proxy.url}/feedback", json=body)


def ratings(demo: DemoServer) -> dict[str, Json | None]:
    """Return the rating of each message that the demo stores."""
    conversations = demo.app.state.demo.conversations.values()
    return {message.id: message.feedback for found in conversations for message in found.messages}


@pytest.mark.parametrize("model", [*CONVERSING, "demo-completion"])
async def test_an_answer_is_rated(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, log: DemoLog, model: str
) -> None:
    name = await answered(client, model, user="anna")
    for rating in ("like", "dislike", None):
        reply = await rate(http, proxy, model=model, message_id=name, rating=rating, user="anna", content="So so.")
        assert reply.status_code == 200, reply.text
        assert reply.json() == {"object": "feedback", "message_id": name, "rating": rating}
        request = log.requests[-1]
        assert request.path == f"/v1/messages/{name}/feedbacks"
        assert request.body == {"user": log.runs[-1].user, "rating": rating, "content": "So so."}


async def test_the_end_user_comes_from_the_body_or_a_header(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, log: DemoLog, demo: DemoServer
) -> None:
    name = await answered(client, "demo-chat", user="anna")
    reply = await rate(http, proxy, model="demo-chat", message_id=name, rating="like", safety_identifier="anna")
    assert reply.status_code == 200
    assert ratings(demo)[name] == {"rating": "like"}
    headers = {"X-OpenWebUI-User-Id": "anna"}
    body = {"model": "demo-chat", "message_id": name, "rating": None}
    assert (await http.post(f"{proxy.url}/feedback", json=body, headers=headers)).status_code == 200
    assert ratings(demo)[name] is None


async def test_nobody_rates_the_messages_of_others(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, log: DemoLog, demo: DemoServer
) -> None:
    name = await answered(client, "demo-chat", user="anna")
    for more in ({"user": "bert"}, {}, {"user": "anna", "model": "demo-agent-chat"}):
        reply = await rate(http, proxy, **{"model": "demo-chat", "message_id": name, "rating": "like", **more})
        assert reply.status_code == 404
        assert (error_of(reply)["code"], error_of(reply)["param"]) == ("not_found", "message_id")
    assert ratings(demo)[name] is None


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"rating": "like"}, 400, ("message_id", "missing_required_parameter")),
        ({"message_id": str(uuid4())}, 400, ("rating", "missing_required_parameter")),
        ({"message_id": str(uuid4()), "rating": "meh"}, 400, ("rating", "invalid_value")),
        ({"message_id": "../../stop", "rating": "like"}, 404, ("message_id", "not_found")),
        ({"message_id": str(uuid4()), "rating": "like"}, 404, ("message_id", "not_found")),
        ({"message_id": str(uuid4()), "rating": "like", "model": "x"}, 404, ("model", "model_not_found")),
    ],
)
async def test_invalid_ratings_are_errors(
    proxy: ProxyServer, http: httpx2.AsyncClient, body: Json, status: int, error: tuple[str, str]
) -> None:
    reply = await http.post(f"{proxy.url}/feedback", json={"model": "demo-chat", **body})
    assert reply.status_code == status
    assert (error_of(reply)["param"], error_of(reply)["code"]) == error
