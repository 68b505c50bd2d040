"""``/v1/conversations``: objects of the proxy that refer to Dify conversations."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError
from structlog.testing import capture_logs

from openai_dify_proxy.turns.claim_timing import ClaimTiming
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import CONVERSING, Json, error_of, turns
from tests.api.conftest import Serve
from tests.api.raw_client import Client, until
from tests.api.response_requests import (
    dify_conversation,
    expect_error,
    get,
    not_found,
    respond,
    stream_of,
    text_of,
    the_request,
    the_run,
    transcript,
)
from tests.api.servers import Clock, ProxyServer
from tests.components.servers import free_ports

UNKNOWN = f"conv_{'0' * 48}"
INITIAL_ITEMS: list[Any] = [
    {"type": "message", "role": "user", "content": "earlier"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "long ago"}]},
]
INITIAL_TEXTS = [("user", "earlier"), ("assistant", "long ago")]


async def items_of(client: AsyncOpenAI, name: str, **more: Any) -> list[tuple[str, str]]:
    """Return role and text of all items, oldest first."""
    listed: list[Any] = [item async for item in client.conversations.items.list(name, order="asc", **more)]
    return [(item.role, item.content[0].text) for item in listed]


# The object


async def test_a_conversation_is_created_retrieved_updated_and_deleted(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    before = int(time.time())
    url = f"{proxy.url}/conversations"
    made: Json = (await http.post(url, json={"metadata": {"topic": "demo"}})).json()
    assert set(made) == {"id", "object", "created_at", "metadata"}
    assert made["id"].startswith("conv_")
    assert (made["object"], made["metadata"]) == ("conversation", {"topic": "demo"})
    assert before <= made["created_at"] <= time.time()
    path = f"{url}/{made['id']}"
    assert (await http.get(path)).json() == made
    changed = (await http.post(path, json={"metadata": {"other": "x"}})).json()
    assert changed == {**made, "metadata": {"other": "x"}} == (await http.get(path)).json()
    headers = {"content-type": "application/json"}
    deleted = await http.request("DELETE", path, headers=headers)
    assert deleted.json() == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
    for method, below in (("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/items")):
        update: Json | None = {"metadata": {}} if method == "POST" else None
        await not_found(
            await http.request(method, path + below, json=update, headers=headers), "conversation_not_found"
        )
    body = {"model": "demo-chat", "input": "hi", "conversation": made["id"]}
    await not_found(await http.post(f"{proxy.url}/responses", json=body), "conversation_not_found")
    assert not log.runs


@pytest.mark.parametrize("name", [UNKNOWN, "conv_1", "%00", "x" * 3000])
async def test_an_unknown_conversation_is_a_404(proxy: ProxyServer, http: httpx2.AsyncClient, name: str) -> None:
    path = f"{proxy.url}/conversations/{name}"
    headers = {"content-type": "application/json"}
    for method, below in (("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/items")):
        body: Json | None = {"metadata": {}} if method == "POST" else None
        await not_found(await http.request(method, path + below, json=body, headers=headers), "conversation_not_found")


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({f"key {number}": "" for number in range(17)}, "metadata"),
        ({"k" * 65: ""}, f"metadata.{'k' * 64}"),
        ({"key": "v" * 513}, "metadata.key"),
        ({"key": 1}, "metadata[...]"),
        ([], "metadata"),
    ],
)
async def test_metadata_has_openais_limits(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, metadata: Any, param: str
) -> None:
    conversation = await client.conversations.create(metadata={"a": "b"})
    for path in ("/conversations", f"/conversations/{conversation.id}"):
        reply = await http.post(f"{proxy.url}{path}", json={"metadata": metadata})
        assert reply.status_code == 400
        assert error_of(reply)["param"].startswith(param.partition("[")[0])
    assert (await client.conversations.retrieve(conversation.id)).metadata == {"a": "b"}


async def test_the_largest_metadata_is_accepted(client: AsyncOpenAI) -> None:
    metadata = {f"{number:064}": "v" * 512 for number in range(16)}
    conversation = await client.conversations.create(metadata=metadata)
    assert (await client.conversations.retrieve(conversation.id)).metadata == metadata


# Turns


@pytest.mark.parametrize("stream", [False, True])
async def test_turns_continue_one_dify_conversation(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    """The request holds the id or an object with the id. All modes and versions run concurrently."""

    async def converse(client: AsyncOpenAI, model: str) -> None:
        conversation = await client.conversations.create()
        dify_ids = set()
        for number in range(3):
            name: Any = conversation.id if number % 2 else {"id": conversation.id}
            if stream:
                events = await stream_of(http, proxy, f"SAY<<{number}>> {model}", model, conversation=name)
                final = events[-1]["response"]
                dify_ids.add(final["dify"]["conversation_id"])
                assert (text_of(events), final["conversation"]) == (str(number), {"id": conversation.id})
            else:
                response = await respond(client, f"SAY<<{number}>> {model}", model, conversation=name)
                dify_ids.add(dify_conversation(response))
                assert response.conversation is not None
                assert (response.output_text, response.conversation.id) == (str(number), conversation.id)
        assert len(dify_ids) == 1
        assert the_request(log, f"SAY<<2>> {model}").body["query"] == f"SAY<<2>> {model}"
        messages = [
            line for number in range(3) for line in (("user", f"SAY<<{number}>> {model}"), ("assistant", str(number)))
        ]
        assert list(the_run(log, f"SAY<<2>> {model}").history) == messages[:4]
        assert await items_of(client, conversation.id) == messages

    models = [f"{name}@{version}" for name in CONVERSING[:3] for version in ("1.11", "1.13", "1.16")]
    async with proxy.client() as client:
        await asyncio.gather(*(converse(client, model) for model in [*models, "demo-agent@1.16"]))


async def test_initial_items_are_sent_to_dify_once(client: AsyncOpenAI, log: DemoLog) -> None:
    developer: Any = {"role": "developer", "content": "Be nice."}
    conversation = await client.conversations.create(items=[developer, *INITIAL_ITEMS])
    assert await items_of(client, conversation.id) == [("system", "Be nice."), *INITIAL_TEXTS]
    await respond(client, "SAY<<one>>", conversation=conversation.id)
    await respond(client, "SAY<<two>>", conversation=conversation.id)
    query = transcript(("User", "earlier"), ("Assistant", "long ago"), question="SAY<<one>>")
    assert [request.body["query"] for request in turns(log)] == [f"Be nice.\n\n{query}", "SAY<<two>>"]
    messages = [("user", "SAY<<one>>"), ("assistant", "one"), ("user", "SAY<<two>>"), ("assistant", "two")]
    assert await items_of(client, conversation.id) == [("system", "Be nice."), *INITIAL_TEXTS, *messages]


async def test_simultaneous_turns_run_one_after_the_other(client: AsyncOpenAI, log: DemoLog) -> None:
    conversation = await client.conversations.create()
    first = asyncio.create_task(respond(client, "SLOW:4x400", conversation=conversation.id))
    await log.wait_for(lambda log: len(log.runs) == 1)
    second = await respond(client, "SAY<<two>>", conversation=conversation.id)
    assert dify_conversation(second) == dify_conversation(await first)
    one, two = log.runs
    assert one.finished_at is not None
    assert two.started_at >= one.finished_at
    assert two.history[-1][0] == "assistant"
    assert two.history[-1][1].startswith("tick 1 tick 2 tick 3 tick 4")


async def test_an_update_of_metadata_waits_for_the_running_turn(client: AsyncOpenAI, log: DemoLog) -> None:
    conversation = await client.conversations.create(metadata={"a": "1"})
    turn = asyncio.create_task(respond(client, "SLOW:4x200", conversation=conversation.id))
    await log.wait_for(lambda log: len(log.runs) == 1)
    await client.conversations.update(conversation.id, metadata={"a": "2"})
    assert turn.done() or log.runs[0].state == "finished"
    response = await turn
    after = await respond(client, "SAY<<two>>", conversation=conversation.id)
    assert dify_conversation(after) == dify_conversation(response)
    assert (await client.conversations.retrieve(conversation.id)).metadata == {"a": "2"}


async def test_a_failed_turn_leaves_no_trace(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    """The next turn starts a new Dify conversation, with a transcript of the completed turns."""

    async def fail(how: str, model: str, conversation: str) -> None:
        body = {"model": model, "input": f"{how} {model}", "conversation": conversation}
        if how.startswith("SLOW"):
            leaving = Client(proxy.port, "/v1/responses")
            await leaving.ask("", **body, stream=True)
            await leaving.read_until(b"tick 2")
            await leaving.disconnect()
            await log.wait_for(lambda log: the_run(log, body["input"]).state == "stopped")
            return
        reply = await http.post(f"{proxy.url}/responses", json=body)
        assert reply.status_code >= 500, reply.text

    async def converse(how: str, model: str) -> None:
        conversation = await client.conversations.create()
        mark = f"{how} {model}"
        first = await respond(client, f"one {mark[::-1]}", model, conversation=conversation.id)
        await fail(how, model, conversation.id)
        second = await respond(client, f"two {mark[::-1]}", model, conversation=conversation.id)
        third = await respond(client, f"three {mark[::-1]}", model, conversation=conversation.id)
        assert dify_conversation(first) != dify_conversation(second) == dify_conversation(third)
        query = transcript(
            ("User", f"one {mark[::-1]}"), ("Assistant", first.output_text), question=f"two {mark[::-1]}"
        )
        assert the_request(log, f"two {mark[::-1]}").body["query"] == query
        assert await items_of(client, conversation.id) == [
            ("user", f"one {mark[::-1]}"),
            ("assistant", first.output_text),
            ("user", f"two {mark[::-1]}"),
            ("assistant", second.output_text),
            ("user", f"three {mark[::-1]}"),
            ("assistant", third.output_text),
        ]
        assert how not in the_request(log, f"three {mark[::-1]}").body["query"]

    hows = ("ERROR", "MIDERROR", "CUT", "SLOW:1000x100")
    models = ("demo-chat@1.11", "demo-advanced-chat@1.16")
    await asyncio.gather(*(converse(how, model) for how in hows for model in models))


async def test_a_turn_that_never_reached_dify_changes_nothing(serve: Serve, log: DemoLog) -> None:
    clock = Clock()
    proxy = serve(timing=ClaimTiming(turn_spacing=3), clock=clock)
    async with proxy.client() as client:
        await check_turns_that_never_reach_dify(proxy, client, clock, log)


async def check_turns_that_never_reach_dify(
    proxy: ProxyServer, client: AsyncOpenAI, clock: Clock, log: DemoLog
) -> None:
    conversation = await client.conversations.create()
    named: dict[str, Any] = {"conversation": conversation.id, "metadata": {"topic": "sea"}}
    first = await respond(client, "SAY<<one>>", "demo-chat-topic", **named)
    lacking = 400, "missing_required_parameter", "inputs.topic"
    await expect_error(respond(client, "hi", "nobody", **named), 404, "model_not_found")
    await expect_error(respond(client, "hi", "demo-chat-topic", conversation=conversation.id), *lacking)
    # The client disconnects while its turn waits for the spacing.
    leaving = Client(proxy.port, "/v1/responses")
    with capture_logs() as logs:
        await leaving.ask("", "demo-chat-topic", input="hi", **named)
        await leaving.disconnect()
        await until(lambda: any(entry.get("status") == 499 for entry in logs))
    clock.ahead = 3
    second = await respond(client, "SAY<<two>>", "demo-chat-topic", **named)
    assert dify_conversation(first) == dify_conversation(second)
    assert [run.question for run in log.runs] == ["SAY<<one>>", "SAY<<two>>"]


async def test_another_model_gets_a_transcript(client: AsyncOpenAI, log: DemoLog, demo: DemoServer) -> None:
    conversation = await client.conversations.create()
    first = await respond(client, "LONG:9", "demo-chat", conversation=conversation.id)
    second = await respond(client, "two", "demo-advanced-chat", conversation=conversation.id)
    assert the_run(log, "two").app == "demo-advanced-chat"
    history = [("User", "LONG:9"), ("Assistant", first.output_text)]
    assert the_run(log, "two").question == transcript(*history, question="two")
    # An app without conversations takes part in the same conversation.
    third = await respond(client, "three", "demo-workflow", conversation=conversation.id)
    history += [("User", "two"), ("Assistant", second.output_text)]
    assert the_run(log, "three").question == transcript(*history, question="three")
    fourth = await respond(client, "four", "demo-workflow", conversation=conversation.id)
    history += [("User", "three"), ("Assistant", third.output_text)]
    assert the_run(log, "four").question == transcript(*history, question="four")
    messages = [(role.lower(), text) for role, text in history]
    assert await items_of(client, conversation.id) == [*messages, ("user", "four"), ("assistant", fourth.output_text)]
    # Deleting it deletes all its Dify conversations.
    ids = [name for response in (first, second) if (name := dify_conversation(response))]
    assert len(ids) == 2
    await client.conversations.delete(conversation.id)
    assert not [name for name in ids if name in demo.app.state.demo.conversations]


async def test_deleting_a_conversation_deletes_it_in_dify(client: AsyncOpenAI, log: DemoLog, demo: DemoServer) -> None:
    conversation = await client.conversations.create()
    name = dify_conversation(await respond(client, "hello", conversation=conversation.id))
    assert name in demo.app.state.demo.conversations
    await client.conversations.delete(conversation.id)
    assert name not in demo.app.state.demo.conversations
    await expect_error(client.conversations.delete(conversation.id), 404, "conversation_not_found")


@pytest.mark.parametrize("model", ["demo-chat@1.11", "demo-chat@1.16", "demo-advanced-chat@1.16"])
async def test_a_conversation_lost_in_dify_is_restored_from_stored_responses(
    client: AsyncOpenAI, log: DemoLog, demo: DemoServer, model: str
) -> None:
    conversation = await client.conversations.create(items=INITIAL_ITEMS)
    first = await respond(client, "LONG:9", model, conversation=conversation.id)
    del demo.app.state.demo.conversations[dify_conversation(first)]
    await expect_error(items_of(client, conversation.id), 404, "conversation_not_found")
    second = await respond(client, "two", model, conversation=conversation.id)
    history = [("User", "earlier"), ("Assistant", "long ago"), ("User", "LONG:9"), ("Assistant", first.output_text)]
    assert the_run(log, "two").question == transcript(*history, question="two")
    messages = [(role.lower(), text) for role, text in history]
    assert await items_of(client, conversation.id) == [*messages, ("user", "two"), ("assistant", second.output_text)]


async def test_a_conversation_lost_in_dify_without_stored_responses_is_a_404(
    client: AsyncOpenAI, log: DemoLog, demo: DemoServer
) -> None:
    conversation = await client.conversations.create()
    first = await respond(client, "hello", conversation=conversation.id, store=False)
    del demo.app.state.demo.conversations[dify_conversation(first)]
    for _ in range(2):
        await expect_error(respond(client, "hi", conversation=conversation.id), 404, "conversation_not_found")
    assert (await client.conversations.delete(conversation.id)).deleted


async def test_only_the_owner_has_access_to_a_conversation(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    proxy = serve(api_keys=("key-one", "key-two"))
    anna, bert = ({"X-OpenWebUI-User-Id": name} for name in ("anna", "bert"))
    async with proxy.client("key-one") as one, proxy.client("key-two") as two:
        mine = await one.conversations.create(extra_headers=anna)
        claimed = await one.conversations.create()
        await respond(one, "SAY<<one>>", conversation=mine.id, extra_headers=anna)
        await respond(one, "SAY<<two>>", conversation=claimed.id, user="anna")
        count = len(turns(log))
        strangers: list[tuple[AsyncOpenAI, dict[str, Any]]] = [
            (two, {"extra_headers": anna}),
            (two, {}),
            (one, {"extra_headers": bert}),
        ]
        for name in (mine.id, claimed.id):
            for client, more in strangers:
                await expect_error(client.conversations.retrieve(name, **more), 404, "conversation_not_found")
                await expect_error(client.conversations.delete(name, **more), 404, "conversation_not_found")
                await expect_error(
                    client.conversations.update(name, metadata={}, **more), 404, "conversation_not_found"
                )
                await expect_error(items_of(client, name, **more), 404, "conversation_not_found")
                await expect_error(respond(client, "hi", conversation=name, **more), 404, "conversation_not_found")
            await expect_error(respond(one, "hi", conversation=name), 404, "conversation_not_found")
        assert len(turns(log)) == count
        assert (await one.conversations.retrieve(claimed.id, extra_headers=anna)).id == claimed.id
        assert await items_of(one, mine.id, extra_headers=anna) == [("user", "SAY<<one>>"), ("assistant", "one")]


# Items


async def test_items_are_paginated(proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient) -> None:
    items: list[Any] = [{"role": "user", "content": f"text {number}"} for number in range(20)]
    conversation = await client.conversations.create(items=items)
    await respond(client, "SAY<<end>>", conversation=conversation.id)
    texts = [*(f"text {number}" for number in range(20)), "SAY<<end>>", "end"]
    path = f"/conversations/{conversation.id}/items"

    async def page(**query: Any) -> tuple[list[str], bool]:
        listed = await get(http, proxy, path, params=query)
        assert set(listed) == {"object", "data", "first_id", "last_id", "has_more"}
        names = [item["id"] for item in listed["data"]]
        assert (listed["object"], listed["first_id"], listed["last_id"]) == ("list", names[0], names[-1])
        assert all(set(item) == {"id", "type", "status", "role", "content"} for item in listed["data"])
        return [item["content"][0]["text"] for item in listed["data"]], listed["has_more"]

    assert await page() == (texts[:1:-1], True)
    assert await page(limit=22) == (texts[::-1], False)
    assert await page(order="asc", limit=3) == (texts[:3], True)
    listed = (await get(http, proxy, path, params={"order": "asc", "limit": 100}))["data"]
    assert len({item["id"] for item in listed}) == 22
    assert await page(order="asc", after=listed[19]["id"]) == (texts[20:], False)
    assert await page(after=listed[1]["id"]) == (texts[:1], False)
    assert listed[20]["content"] == [{"type": "input_text", "text": "SAY<<end>>"}]
    assert listed[21]["content"] == [{"type": "output_text", "text": "end", "annotations": [], "logprobs": []}]
    items = [item async for item in client.conversations.items.list(conversation.id, limit=5)]
    assert [item.content[0].text for item in items] == texts[::-1]
    for query, param in (({"limit": 101}, "limit"), ({"order": "x"}, "order"), ({"after": "msg_x"}, "after")):
        reply = await http.get(f"{proxy.url}{path}", params=query)
        assert (reply.status_code, error_of(reply)["param"]) == (400, param)


async def test_responses_that_are_not_stored_are_read_from_dify(client: AsyncOpenAI, log: DemoLog) -> None:
    conversation = await client.conversations.create()
    first = await respond(client, "SAY<<one>>", conversation=conversation.id, store=False)
    second = await respond(client, "SAY<<two>>", conversation=conversation.id, store=False)
    assert dify_conversation(first) == dify_conversation(second)
    messages = [("user", "SAY<<one>>"), ("assistant", "one"), ("user", "SAY<<two>>"), ("assistant", "two")]
    assert await items_of(client, conversation.id) == messages
    await expect_error(client.responses.retrieve(first.id), 404, "response_not_found")


async def test_without_state_conversations_are_unavailable(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    (port,) = free_ports(1)
    proxy = serve(state_url=f"valkey://127.0.0.1:{port}")
    url = f"{proxy.url}/conversations"
    headers = {"content-type": "application/json"}
    for method, path in (
        ("POST", ""),
        ("GET", "/conv_1"),
        ("POST", "/conv_1"),
        ("DELETE", "/conv_1"),
        ("GET", "/conv_1/items"),
        ("POST", "/conv_1/items"),
        ("GET", "/conv_1/items/msg_1"),
        ("DELETE", "/conv_1/items/msg_1"),
    ):
        body: Json | None = {"metadata": {}, "items": INITIAL_ITEMS} if method == "POST" else None
        reply = await http.request(method, url + path, json=body, headers=headers)
        assert (reply.status_code, error_of(reply)["code"]) == (503, "state_unavailable")


async def test_a_conversation_may_begin_with_a_call(client: AsyncOpenAI, log: DemoLog) -> None:
    call: Any = {"type": "function_call", "call_id": "c-1", "name": "clock", "arguments": "{}"}
    result: Any = {"type": "function_call_output", "call_id": "c-1", "output": "12:30"}
    conversation = await client.conversations.create(items=[{"role": "user", "content": "Time?"}, call])
    with pytest.raises(BadRequestError, match=r"No tool output found for function call c-1\."):
        await client.responses.create(model="demo-chat", conversation=conversation.id, input="Hello?")
    await client.responses.create(model="demo-chat", conversation=conversation.id, input=[result])
    assert '<tool_result name="clock">\n12:30\n</tool_result>' in turns(log)[-1].body["query"]
    await client.responses.create(model="demo-chat", conversation=conversation.id, input="Thanks.")
    assert turns(log)[-1].body["query"] == "Thanks."
