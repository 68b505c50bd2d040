"""``/v1/conversations/{id}/items``: items are added, retrieved and deleted, which Dify cannot do."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import CONVERSING, Json, error_of, turns
from tests.api.raw_client import until
from tests.api.response_requests import (
    dify_conversation,
    expect_error,
    respond,
    the_request,
    the_run,
    transcript,
)
from tests.api.servers import ProxyServer

NOTE: Any = {"type": "message", "role": "user", "content": "noted"}
REMARK: Any = {"role": "assistant", "content": [{"type": "output_text", "text": "Noted."}]}
CALL: Any = {"type": "function_call", "call_id": "c-1", "name": "clock", "arguments": "{}"}
RESULT: Any = {"type": "function_call_output", "call_id": "c-1", "output": "12:30"}


async def listed(client: AsyncOpenAI, name: str) -> list[Any]:
    """Return all items, oldest first."""
    return [item async for item in client.conversations.items.list(name, order="asc")]


def texts(items: list[Any]) -> list[str]:
    return [item.content[0].text for item in items]


async def test_added_items_are_listed_and_sent_with_the_next_turn(client: AsyncOpenAI, log: DemoLog) -> None:
    async def converse(model: str) -> None:
        conversation = await client.conversations.create()
        first = await respond(client, f"one {model}", model, conversation=conversation.id)
        before = await listed(client, conversation.id)
        added = await client.conversations.items.create(conversation.id, items=[NOTE, REMARK])
        assert (added.object, added.has_more) == ("list", False)
        assert (added.first_id, added.last_id) == (added.data[0].id, added.data[1].id)
        assert texts(added.data) == ["noted", "Noted."]
        assert await listed(client, conversation.id) == [*before, *added.data]
        second = await respond(client, f"two {model}", model, conversation=conversation.id)
        assert the_request(log, f"two {model}").body["query"] == transcript(
            ("User", f"one {model}"),
            ("Assistant", first.output_text),
            ("User", "noted"),
            ("Assistant", "Noted."),
            question=f"two {model}",
        )
        assert dify_conversation(first) != dify_conversation(second)
        after = await listed(client, conversation.id)
        assert after[:4] == [*before, *added.data]
        assert texts(after[4:]) == [f"two {model}", second.output_text]
        third = await respond(client, f"three {model}", model, conversation=conversation.id)
        assert dify_conversation(third) == dify_conversation(second)
        assert the_request(log, f"three {model}").body["query"] == f"three {model}"

    await asyncio.gather(*map(converse, CONVERSING))


async def test_a_deleted_item_is_seen_by_no_later_turn(client: AsyncOpenAI, log: DemoLog) -> None:
    async def converse(model: str) -> None:
        conversation = await client.conversations.create(metadata={"a": "b"})
        for word in ("one", "two"):
            await respond(client, f"{word} {model}", model, conversation=conversation.id)
        items = await listed(client, conversation.id)
        left = await client.conversations.items.delete(items[0].id, conversation_id=conversation.id)
        assert left == conversation
        assert await listed(client, conversation.id) == items[1:]
        left = await client.conversations.items.delete(items[2].id, conversation_id=conversation.id)
        remaining = [items[1], items[3]]
        assert await listed(client, conversation.id) == remaining
        for item_id in (items[0].id, items[2].id):
            gone = client.conversations.items.retrieve(item_id, conversation_id=conversation.id)
            await expect_error(gone, 404, "not_found", "item_id")
        await respond(client, f"three {model}", model, conversation=conversation.id)
        assert the_request(log, f"three {model}").body["query"] == transcript(
            *(("Assistant", text) for text in texts(remaining)), question=f"three {model}"
        )
        assert (await listed(client, conversation.id))[:2] == remaining

    await asyncio.gather(*map(converse, CONVERSING))


async def test_one_item_is_retrieved(client: AsyncOpenAI, log: DemoLog) -> None:
    conversation = await client.conversations.create(items=[NOTE, CALL, RESULT])
    await respond(client, "SAY<<one>>", conversation=conversation.id)
    items = await listed(client, conversation.id)
    assert [item.type for item in items] == [
        "message",
        "function_call",
        "function_call_output",
        "message",
        "message",
    ]
    for item in items:
        assert await client.conversations.items.retrieve(item.id, conversation_id=conversation.id) == item


async def test_deleted_items_stay_deleted_after_dify_lost_the_conversation(
    client: AsyncOpenAI, log: DemoLog, demo: DemoServer
) -> None:
    """The stored responses still have the texts."""
    conversation = await client.conversations.create(items=[REMARK])
    await respond(client, "one", conversation=conversation.id)
    items = await listed(client, conversation.id)
    await client.conversations.items.delete(items[2].id, conversation_id=conversation.id)
    second = await respond(client, "LONG:9", conversation=conversation.id)
    lost = dify_conversation(second)
    assert lost is not None
    del demo.app.state.demo.conversations[lost]
    third = await respond(client, "three", conversation=conversation.id)
    query = transcript(
        ("Assistant", "Noted."),
        ("User", "one"),
        ("User", "LONG:9"),
        ("Assistant", second.output_text),
        question="three",
    )
    assert turns(log)[-1].body["query"] == query
    assert dify_conversation(third) != lost
    assert texts(await listed(client, conversation.id)) == [
        "Noted.",
        "one",
        "LONG:9",
        second.output_text,
        "three",
        third.output_text,
    ]


async def test_deleting_the_conversation_deletes_its_copies_in_dify(
    client: AsyncOpenAI, log: DemoLog, demo: DemoServer
) -> None:
    conversation = await client.conversations.create()
    first = await respond(client, "SAY<<one>>", conversation=conversation.id)
    await client.conversations.items.create(conversation.id, items=[NOTE])
    second = await respond(client, "SAY<<two>>", conversation=conversation.id)
    await client.conversations.delete(conversation.id)
    names = {dify_conversation(first), dify_conversation(second)}
    assert len(names) == 2
    assert not names & set(demo.app.state.demo.conversations)


async def test_a_result_can_be_added_before_the_next_turn(client: AsyncOpenAI, log: DemoLog) -> None:
    conversation = await client.conversations.create(items=[NOTE, CALL])
    unanswered = client.responses.create(model="demo-chat", conversation=conversation.id, input="Hello?")
    await expect_error(unanswered, 400, None, "input")
    await client.conversations.items.create(conversation.id, items=[RESULT])
    await client.responses.create(model="demo-chat", conversation=conversation.id, input="Thanks.")
    assert '<tool_result name="clock">\n12:30\n</tool_result>' in turns(log)[-1].body["query"]


@pytest.mark.parametrize("deleted", ["call", "answer"])
async def test_a_deleted_call_needs_no_result(client: AsyncOpenAI, log: DemoLog, deleted: str) -> None:
    tool: Any = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}
    if deleted == "call":
        conversation = await client.conversations.create(items=[NOTE, CALL])
    else:
        conversation = await client.conversations.create()
        calling = 'SAY<<<tool_call>{"name": "clock", "arguments": {}}</tool_call>>>'
        await respond(client, calling, conversation=conversation.id, tools=[tool])
    unanswered = client.responses.create(model="demo-chat", conversation=conversation.id, input="Hello?")
    await expect_error(unanswered, 400, None, "input")
    last = (await listed(client, conversation.id))[-1]
    await client.conversations.items.delete(last.id, conversation_id=conversation.id)
    assert (await respond(client, "Never mind.", conversation=conversation.id)).status == "completed"


async def test_a_change_waits_for_the_running_turn(client: AsyncOpenAI, log: DemoLog) -> None:
    conversation = await client.conversations.create()
    running = asyncio.create_task(respond(client, "SLOW:20x50 a", conversation=conversation.id))
    await until(lambda: any(run.question.endswith("SLOW:20x50 a") for run in log.runs))
    await client.conversations.items.create(conversation.id, items=[NOTE])
    response = await running
    assert texts(await listed(client, conversation.id)) == ["SLOW:20x50 a", response.output_text.strip(), "noted"]
    assert the_run(log, "SLOW:20x50 a").state == "finished"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, ("items", "missing_required_parameter")),
        ({"items": []}, ("items", "empty_array")),
        ({"items": [{"role": "robot", "content": "x"}]}, ("items[0].role", "invalid_value")),
        ({"items": [{"type": "function_call"}]}, ("items[0].call_id", "missing_required_parameter")),
        ({"items": [{"role": "user", "content": "x"}] * 10001}, ("items", "array_above_max_length")),
        ({"items": [{"role": "user", "content": "x" * (1024 * 1024 + 1)}]}, ("items", "string_above_max_length")),
    ],
)
async def test_invalid_items_are_a_400(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, body: Json, error: tuple[str, str]
) -> None:
    conversation = await client.conversations.create()
    reply = await http.post(f"{proxy.url}/conversations/{conversation.id}/items", json=body)
    assert reply.status_code == 400
    assert (error_of(reply)["param"], error_of(reply)["code"]) == error
    assert await listed(client, conversation.id) == []


async def test_the_items_of_a_conversation_have_a_limit(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(items=[NOTE] * 9999)
    await client.conversations.items.create(conversation.id, items=[NOTE])
    one_more = client.conversations.items.create(conversation.id, items=[NOTE])
    await expect_error(one_more, 400, "array_above_max_length", "items")


async def test_items_without_content_for_dify_are_left_out(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    added = await client.conversations.items.create(
        conversation.id, items=[{"type": "reasoning", "id": "rs_1", "summary": []}]
    )
    assert (added.data, added.first_id, added.last_id) == ([], "", "")


async def test_unknown_items_and_those_of_others_are_a_404(client: AsyncOpenAI, log: DemoLog) -> None:
    conversation = await client.conversations.create(items=[NOTE], extra_headers={"X-OpenWebUI-User-Id": "anna"})
    (item,) = await listed(client, conversation.id)
    items = client.conversations.items
    for call in (items.retrieve, items.delete):
        await expect_error(call("msg_0", conversation_id=conversation.id), 404, "not_found", "item_id")
        await expect_error(call(item.id, conversation_id="conv_0"), 404, "conversation_not_found")
        bert = call(item.id, conversation_id=conversation.id, extra_headers={"X-OpenWebUI-User-Id": "bert"})
        await expect_error(bert, 404, "conversation_not_found")
    await expect_error(items.create("conv_0", items=[NOTE]), 404, "conversation_not_found")
    assert await listed(client, conversation.id) == [item]
