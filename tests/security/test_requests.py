"""Requests with odd contents: rejected with a 400 that says why, never a 500."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any, cast

import httpx2
import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.responses.continuation import ContinuationResolver
from openai_dify_proxy.responses.response_store import ResponseStore, StoredConversation, StoredResponse
from openai_dify_proxy.state import GuardedStore
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.translate.openai.conversation_items import MAX_ITEM_TEXT, MAX_ITEMS_TEXT
from openai_dify_proxy.translate.openai.responses_request import MAX_REFERENCED_TEXT, MAX_STORED_BODY
from openai_dify_proxy.translate.openai.stored_items import split_items
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.turns.admission.admittance import Admittance
from openai_dify_proxy.turns.admission.conversation_lines import ConversationLines
from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.apps import App, Apps
from openai_dify_proxy.turns.callers import ANONYMOUS
from openai_dify_proxy.turns.client import ConnectedClient
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.wire.complexity import MAX_DEPTH, MAX_VALUES
from openai_dify_proxy.wire.openai.chat import MAX_ITEMS
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import error_of
from tests.api.servers import END, LAST_CHUNK, SSE_HEAD, ProxyServer, chunk, message_frame, raw_dify, scripted

ROUTES = {
    "/chat/completions": {"model": "demo-chat", "messages": [{"role": "user", "content": "Hi"}]},
    "/completions": {"model": "demo-chat", "prompt": "Hi"},
    "/responses": {"model": "demo-chat", "input": "Hi"},
    "/conversations": {"metadata": {}},
}


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


async def post(http: httpx2.AsyncClient, proxy: ProxyServer, path: str, field: str, value: str) -> httpx2.Response:
    body = json.dumps(ROUTES[path])[:-1] + f', "{field}": {value}' + "}"
    return await http.post(proxy.url + path, content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("field", ["inputs", "tools", "unknown"])
async def test_deep_json(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, path: str, field: str) -> None:
    for levels in (MAX_DEPTH, 940, 955, 960, 962, 965, 970, 1000, 5000):
        reply = await post(http, proxy, path, field, nested(levels))
        assert reply.status_code == 400, levels
        assert f"more than {MAX_DEPTH} levels" in error_of(reply)["message"]
    assert not log.requests


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("field", ["inputs", "unknown"])
async def test_json_as_deep_as_allowed(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, path: str, field: str
) -> None:
    reply = await post(http, proxy, path, field, nested(MAX_DEPTH - 1))
    assert reply.status_code == 200


@pytest.mark.parametrize("path", ROUTES)
async def test_too_many_values(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, path: str) -> None:
    reply = await post(http, proxy, path, "unknown", "[" + "{}," * (MAX_VALUES // 2) + "{}]")
    assert reply.status_code == 400
    assert f"more than {MAX_VALUES} values" in error_of(reply)["message"]
    assert not log.requests


@pytest.mark.parametrize("value", [nested(600), "[" + "{}," * (MAX_VALUES // 2) + "{}]"], ids=["deep", "many"])
async def test_json_inside_a_string(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, value: str) -> None:
    metadata: dict[str, Any] = {"dify_inputs": f'{{"a": {value}}}'}
    reply = await post(http, proxy, "/chat/completions", "metadata", json.dumps(metadata))
    assert (reply.status_code, error_of(reply)["param"]) == (400, "metadata.dify_inputs")
    assert not log.requests


def user(content: Any = "Hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


LISTS = [
    ("/chat/completions", "messages"),
    ("/chat/completions", "input"),
    ("/responses", "input"),
    ("/responses", "messages"),
    ("/conversations", "items"),
]


@pytest.mark.parametrize(("path", "field"), LISTS)
async def test_the_number_of_items_is_limited(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, path: str, field: str
) -> None:
    body = {"model": "demo-chat", field: [user()] * (MAX_ITEMS + 1)}
    reply = await http.post(proxy.url + path, json=body)
    error = error_of(reply)
    assert (reply.status_code, error["param"], error["code"]) == (400, field, "array_above_max_length")
    assert "maximum length 10000" in error["message"]
    parts = [{"type": "text", "text": "x"}] * (MAX_ITEMS + 1)
    reply = await http.post(proxy.url + path, json={**body, field: [user(parts)]})
    assert (reply.status_code, error_of(reply)["code"]) == (400, "array_above_max_length")
    assert error_of(reply)["param"] == f"{field}[0].content"
    assert not log.requests


async def test_copies_of_a_stored_answer_are_limited(
    raw_proxy: ProxyServer, raw_socket: socket.socket, http: httpx2.AsyncClient
) -> None:
    """Few bytes that reference a long answer again and again."""
    url = f"{raw_proxy.url}/responses"
    answer = scripted([SSE_HEAD, chunk(message_frame("x" * 100_000)), chunk(END), LAST_CHUNK])
    async with raw_dify(answer, at=raw_socket) as dify:
        stored = (await http.post(url, json={"model": "raw-chat", "input": "Hi"})).json()
        reference = {"type": "item_reference", "id": stored["output"][0]["id"]}
        body = {"model": "raw-chat", "input": [reference] * 400 + [user()]}
        reply = await http.post(url, json=body)
        assert (reply.status_code, error_of(reply)["param"]) == (400, "input")
        assert f"more than {MAX_REFERENCED_TEXT} characters" in error_of(reply)["message"]
        assert len(dify.turns) == 1
        reply = await http.post(url, json={**body, "input": [reference] * 80 + [user()]})
        assert reply.status_code == 200


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([user("x" * MAX_ITEM_TEXT), user("x")], None),
        ([user("x"), user("x" * (MAX_ITEM_TEXT + 1))], f"An item in 'items' has more than {MAX_ITEM_TEXT} characters"),
        ([user([{"type": "input_text", "text": "x" * 600_000}] * 2)], f"more than {MAX_ITEM_TEXT} characters"),
        ([user("x" * MAX_ITEM_TEXT)] * 8 + [user("x")], f"'items' has more than {MAX_ITEMS_TEXT} characters in all"),
    ],
    ids=["allowed", "one", "parts", "all"],
)
async def test_the_text_of_a_new_conversation_is_limited(
    proxy: ProxyServer, http: httpx2.AsyncClient, items: list[Any], said: str | None
) -> None:
    reply = await http.post(f"{proxy.url}/conversations", json={"items": items})
    if said is None:
        assert reply.status_code == 200
        return
    error = error_of(reply)
    assert (reply.status_code, error["param"], error["code"]) == (400, "items", "string_above_max_length")
    assert said in error["message"]


async def test_a_conversation_that_has_grown_too_long_is_not_continued() -> None:
    """For an app without conversations the proxy stores all messages."""
    conversations = Conversations(GuardedStore(MemoryStore(max_entries=100)), ttl=60, now=lambda: 0.0)
    stored = ResponseStore(conversations)
    resolver = ContinuationResolver(stored, cast(Turns, None), cast(Apps, None))  # it needs neither here
    half = HistoryMessage("user", "x" * (MAX_REFERENCED_TEXT // 2))
    entries = {
        "conv_1": [half, half],
        "conv_2": [half, half, HistoryMessage("assistant", "y")],
        "conv_3": [HistoryMessage("user", "x")] * (MAX_ITEMS + 1),
    }
    for name, items in entries.items():
        await stored.conversations.put(ANONYMOUS, name, StoredConversation(0, items=split_items(items, name)))

    wait = TurnWait(0)
    admittance = Admittance((), ConversationLines(1), Line("", None), ConnectedClient(), wait, 0)

    async def earlier(name: str) -> Sequence[HistoryMessage]:
        resolved = resolver.resolve(
            ANONYMOUS, cast(App, None), admittance, end_user=None, history=(), previous=None, conversation=name
        )
        async with resolved as continued:
            assert continued.recall is not None
            return await continued.recall()

    assert await earlier("conv_1") == [half, half]
    for name in ("conv_2", "conv_3"):
        with pytest.raises(InvalidRequest, match="more than 10000 messages or 8388608 characters"):
            await earlier(name)


async def test_a_response_to_a_very_large_request_is_not_stored(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    body: dict[str, Any] = {"model": "demo-chat", "input": "Hi", "unknown": "x" * MAX_STORED_BODY}
    for store in ({}, {"store": True}, {"background": True}):
        reply = await http.post(f"{proxy.url}/responses", json=body | store)
        assert (reply.status_code, error_of(reply)["param"]) == (400, "store")
        assert f"more than {MAX_STORED_BODY} bytes" in error_of(reply)["message"]
    assert not log.requests
    reply = await http.post(f"{proxy.url}/responses", json={**body, "store": False})
    assert reply.status_code == 200


async def test_the_history_of_a_response_is_limited() -> None:
    """Also where a damaged entry names itself as the response before it."""
    conversations = Conversations(GuardedStore(MemoryStore(max_entries=100)), ttl=60, now=lambda: 0.0)
    stored = ResponseStore(conversations)
    long = [HistoryMessage("user", "x" * (MAX_REFERENCED_TEXT // 2))]
    entries = {
        "resp_itself": StoredResponse(b"{}", previous="resp_itself"),
        "resp_1": StoredResponse(b"{}", messages=long),
        "resp_2": StoredResponse(b"{}", messages=[*long], previous="resp_1"),
        "resp_3": StoredResponse(b"{}", messages=[HistoryMessage("assistant", "y")], previous="resp_2"),
        "resp_many": StoredResponse(b"{}", messages=[HistoryMessage("user", "x")] * (MAX_ITEMS + 1)),
    }
    for name, entry in entries.items():
        await stored.responses.put(ANONYMOUS, name, entry)
    assert await stored.recall(ANONYMOUS, "resp_2", None) == (*long, *long)
    for name in ("resp_itself", "resp_3", "resp_many"):
        with pytest.raises(InvalidRequest, match="more than 10000 messages or 8388608 characters"):
            await stored.recall(ANONYMOUS, name, None)
