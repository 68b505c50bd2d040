"""``/v1/responses``, not streamed: the object, continuation, and storage."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response as SdkResponse

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import CONVERSING, error_of, the_turn, turns
from tests.api.conftest import Serve
from tests.api.response_requests import (
    KEYS,
    dify_conversation,
    expect_error,
    get,
    not_found,
    read_files,
    respond,
    the_request,
    the_run,
    transcript,
)
from tests.api.servers import ProxyServer
from tests.components.servers import free_ports

VERSIONS = ("0.15", "1.11", "1.13", "1.16")
CONVERSING_MODELS = [
    f"{name}@{version}" for version in VERSIONS for name in CONVERSING if name != "demo-agent" or version == "1.16"
]
UNKNOWN = f"resp_{'0' * 48}"


NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
"""The strict schema of a tool without parameters."""


async def post(http: httpx2.AsyncClient, proxy: ProxyServer, **body: Any) -> httpx2.Response:
    return await http.post(f"{proxy.url}/responses", json={"model": "demo-chat", "input": "hello", **body})


# The object


async def test_a_new_and_a_stored_response_have_all_keys(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    before = int(time.time())
    reply = await post(http, proxy, input="SAY<<Good day>>")
    fresh = reply.json()
    assert set(fresh) - {"dify"} == KEYS
    SdkResponse.model_validate(fresh, strict=True)
    assert (fresh["object"], fresh["status"], fresh["model"]) == ("response", "completed", "demo-chat")
    assert fresh["id"].startswith("resp_")
    assert before <= fresh["created_at"] <= fresh["completed_at"] <= time.time()
    (message,) = fresh["output"]
    assert message["id"].startswith("msg_")
    assert message == {
        "id": message["id"],
        "type": "message",
        "status": "completed",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Good day"}],
        "role": "assistant",
    }
    usage = fresh["usage"]
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"] > 0
    assert usage["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert usage["output_tokens_details"] == {"reasoning_tokens": 0}
    assert fresh["dify"]["conversation_id"] == reply.headers["x-dify-conversation-id"] == log.runs[0].conversation_id
    assert (fresh["store"], fresh["background"], fresh["error"], fresh["metadata"]) == (True, False, None, {})
    assert await get(http, proxy, f"/responses/{fresh['id']}") == fresh


async def test_a_response_repeats_the_fields_of_its_request(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    fields = {
        "instructions": "Be brief.",
        "max_output_tokens": 77,
        "max_tool_calls": 3,
        "metadata": {"project": "x"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "anna",
        "temperature": 0.5,
        "tools": [
            {"type": "function", "name": "f", "description": "F.", "parameters": NOTHING, "strict": True},
            {"type": "of_tomorrow"},
        ],
        "tool_choice": "auto",
        "top_p": 0.25,
        "truncation": "auto",
        "user": "bert",
    }
    response = (await post(http, proxy, **fields)).json()
    assert {name: response[name] for name in fields} == fields


# Requests


@pytest.mark.parametrize(
    ("value", "question"),
    [
        ("hello", "hello"),
        ([{"role": "user", "content": "hello"}], "hello"),
        ([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}], "hello"),
        ([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}], "one\n\ntwo"),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}, {"role": "user", "content": "hello"}], "hello"),
    ],
)
async def test_input_is_text_or_items(client: AsyncOpenAI, log: DemoLog, value: Any, question: str) -> None:
    await respond(client, value)
    assert the_turn(log).body["query"] == question


async def test_messages_are_accepted_as_input(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    body = {"model": "demo-chat", "messages": [{"role": "user", "content": "hello"}]}
    response = (await http.post(f"{proxy.url}/responses", json=body)).json()
    assert response["object"] == "response"
    assert the_turn(log).body["query"] == "hello"
    (item,) = (await get(http, proxy, f"/responses/{response['id']}/input_items"))["data"]
    assert item["content"] == [{"type": "input_text", "text": "hello"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_input_is_accepted_as_messages_of_a_chat(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "SAY<<hello>>"}]}]
    body = {"model": "demo-chat", "input": items, "stream": stream}
    reply = await http.post(f"{proxy.url}/chat/completions", json=body)
    assert '"object":"chat.completion' in reply.text
    assert "hello" in reply.text
    assert the_turn(log).body["query"] == "SAY<<hello>>"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"input": None}, {"code": "missing_required_parameter", "param": "input"}),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, {"code": "missing_required_parameter"}),
        ({"previous_response_id": UNKNOWN, "conversation": "conv_1"}, {"code": "mutually_exclusive_parameters"}),
        ({"background": True, "store": False}, {"param": "background"}),
        ({"tool_choice": "required", "tools": []}, {"param": "tool_choice"}),
        ({"tools": [{"type": "mcp"}], "tool_choice": {"type": "mcp"}}, {"code": "unsupported_parameter"}),
        ({"max_output_tokens": 8}, {"code": "integer_below_min_value", "param": "max_output_tokens"}),
        ({"conversation": "foo"}, {"code": "invalid_value", "param": "conversation"}),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}]}, {"param": "input"}),
        ({"input": [{"type": "item_reference", "id": f"msg_{'0' * 48}"}]}, {"param": "input[0].id"}),
        ({"input": [{"role": "user", "content": 3}]}, {"param": "input[0].content"}),
    ],
)
async def test_unsupported_requests_are_rejected(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, body: dict[str, Any], error: dict[str, str]
) -> None:
    reply = await post(http, proxy, **body)
    assert reply.status_code == 400
    assert error.items() <= error_of(reply).items()
    assert not turns(log)


# Continuing an earlier response


async def test_chains_continue_one_conversation_and_send_only_new_text(proxy: ProxyServer, log: DemoLog) -> None:
    async def chain(client: AsyncOpenAI, model: str) -> None:
        first = await respond(client, f"SAY<<one>> {model}", model)
        second = await respond(client, f"SAY<<two>> {model}", model, previous_response_id=first.id)
        third = await respond(client, f"SAY<<three>> {model}", model, previous_response_id=second.id)
        assert {dify_conversation(response) for response in (first, second, third)} == {dify_conversation(first)}
        assert (second.previous_response_id, third.previous_response_id) == (first.id, second.id)
        for word in ("two", "three"):
            body = the_request(log, f"SAY<<{word}>> {model}").body
            assert (body["query"], body["conversation_id"]) == (f"SAY<<{word}>> {model}", dify_conversation(first))
        history = [("user", f"SAY<<one>> {model}"), ("assistant", "one")]
        history += [("user", f"SAY<<two>> {model}"), ("assistant", "two")]
        assert list(the_run(log, f"SAY<<three>> {model}").history) == history

    async with proxy.client() as client:
        await asyncio.gather(*(chain(client, model) for model in CONVERSING_MODELS))


async def test_a_response_without_input_continues(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await respond(client, "SAY<<one>>")
    second = await client.responses.create(model="demo-chat", previous_response_id=first.id)
    assert dify_conversation(second) == dify_conversation(first)
    assert turns(log)[-1].body["query"] == "Continue."


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"background": True}])
async def test_fields_without_effect_are_named_in_a_header(
    proxy: ProxyServer, http: httpx2.AsyncClient, fields: dict[str, Any]
) -> None:
    reply = await post(http, proxy, temperature=0.5, tools=[{"type": "file_search", "vector_store_ids": []}], **fields)
    assert reply.headers["x-unsupported-parameters"] == "tools[0] (file_search), temperature"


async def test_an_older_response_is_forked_with_a_transcript(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await respond(client, "SAY<<one>>")
    second = await respond(client, "SAY<<two>>", previous_response_id=first.id)
    other = await respond(client, "SAY<<other>>", previous_response_id=first.id)
    assert dify_conversation(second) == dify_conversation(first) != dify_conversation(other)
    history = [("User", "SAY<<one>>"), ("Assistant", "one")]
    assert the_request(log, "SAY<<other>>").body["query"] == transcript(*history, question="SAY<<other>>")
    # Both branches continue, each in its own conversation.
    third, after = await asyncio.gather(
        respond(client, "SAY<<three>>", previous_response_id=second.id),
        respond(client, "SAY<<after>>", previous_response_id=other.id),
    )
    assert dify_conversation(third) == dify_conversation(first)
    assert dify_conversation(after) == dify_conversation(other)
    assert the_request(log, "SAY<<after>>").body["query"] == "SAY<<after>>"
    # A branch from the middle of a branch gets the history up to that point.
    late = [*history, ("User", "SAY<<other>>"), ("Assistant", other.output_text)]
    await respond(client, "SAY<<late>>", previous_response_id=other.id)
    assert the_request(log, "SAY<<late>>").body["query"] == transcript(*late, question="SAY<<late>>")


async def test_simultaneous_continuations_of_one_response_do_not_mix(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await respond(client, "SAY<<one>>")
    left, right = await asyncio.gather(
        respond(client, "SAY<<left>>", previous_response_id=first.id),
        respond(client, "SAY<<right>>", previous_response_id=first.id),
    )
    conversations = {dify_conversation(left), dify_conversation(right)}
    assert len(conversations) == 2
    assert dify_conversation(first) in conversations


@pytest.mark.parametrize("model", ["demo-workflow", "demo-completion"])
async def test_apps_without_conversations_get_the_whole_chain(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    first = await respond(client, "one LONG:12", model)
    second = await respond(client, "two", model, previous_response_id=first.id)
    await respond(client, "three", model, previous_response_id=second.id)
    history = [("User", "one LONG:12"), ("Assistant", first.output_text)]
    history += [("User", "two"), ("Assistant", second.output_text)]
    assert the_run(log, "three").question == transcript(*history, question="three")


@pytest.mark.parametrize("model", ["demo-advanced-chat", "demo-workflow"])
async def test_another_model_in_a_chain_gets_a_transcript(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    first = await respond(client, "SAY<<one>>")
    second = await respond(client, "SAY<<two>>", model, previous_response_id=first.id)
    assert second.model == model
    run = the_run(log, "SAY<<two>>")
    assert run.app == model
    assert run.question == transcript(("User", "SAY<<one>>"), ("Assistant", "one"), question="SAY<<two>>")


async def test_instructions_apply_to_one_request(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await respond(client, "SAY<<one>>", instructions="Be brief.")
    second = await respond(client, "SAY<<two>>", instructions="Be long.", previous_response_id=first.id)
    third = await respond(client, "SAY<<three>>", previous_response_id=second.id)
    fourth = await respond(client, "SAY<<four>>", previous_response_id=third.id)
    assert [request.body["query"] for request in turns(log)] == [
        "Be brief.\n\nSAY<<one>>",
        "Be long.\n\nSAY<<two>>",
        "SAY<<three>>",
        "SAY<<four>>",
    ]
    assert {dify_conversation(response) for response in (second, third, fourth)} == {dify_conversation(first)}
    assert (third.instructions, second.instructions) == (None, "Be long.")


async def test_responses_of_others_cannot_be_continued_or_read(serve: Serve, log: DemoLog) -> None:
    proxy = serve(api_keys=("key-one", "key-two"))
    async with proxy.client("key-one") as one, proxy.client("key-two") as two:
        mine = await respond(one, "hello", user="anna")
        unstored = await respond(one, "hello", store=False)
        count = len(turns(log))
        strangers: list[tuple[AsyncOpenAI, str, dict[str, Any]]] = [
            (two, mine.id, {"user": "anna"}),
            (one, mine.id, {"user": "bert"}),
            (one, mine.id, {"extra_headers": {"X-OpenWebUI-User-Id": "bert"}}),
            (one, mine.id, {}),
            (one, unstored.id, {}),
            (one, UNKNOWN, {}),
            (one, "nonsense/../", {}),
        ]
        for client, name, more in strangers:
            request = respond(client, "hi", previous_response_id=name, **more)
            await expect_error(request, 400, "previous_response_not_found", "previous_response_id")
        assert len(turns(log)) == count
        await expect_error(one.responses.retrieve(unstored.id), 404, "response_not_found")
        for action in (
            two.responses.retrieve,
            two.responses.delete,
            two.responses.cancel,
            two.responses.input_items.list,
        ):
            await expect_error(action(mine.id), 404, "response_not_found")
        await expect_error(
            one.responses.retrieve(mine.id, extra_headers={"X-OpenWebUI-User-Id": "bert"}), 404, "response_not_found"
        )
        assert (await one.responses.retrieve(mine.id)).id == mine.id


async def test_a_failed_turn_is_not_part_of_the_chain(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    first = await respond(client, "SAY<<one>>")
    failed = await post(http, proxy, input="MIDERROR", previous_response_id=first.id)
    assert failed.status_code >= 500
    assert error_of(failed)
    await respond(client, "SAY<<two>>", previous_response_id=first.id)
    history = [("User", "SAY<<one>>"), ("Assistant", "one")]
    assert the_request(log, "SAY<<two>>").body["query"] == transcript(*history, question="SAY<<two>>")


# store


async def test_responses_with_store_false_are_not_stored_but_continue(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, tmp_path: Path
) -> None:
    """Codex sends all items again with each request, unchanged, and never stores responses."""
    file = tmp_path / "state.db"
    proxy = serve(state_url=f"sqlite:///{file}", workers=2)  # which write each entry at once
    items: list[Any] = []
    name = ""
    for word in ("zanzibar", "quetzal", "xylophone"):
        items.append(
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"SAY<<re{word}>>"}]}
        )
        reply = await post(
            http, proxy, input=items, store=False, instructions="ukulele", include=["reasoning.encrypted_content"]
        )
        response = reply.json()
        assert response["store"] is False
        items += response["output"]
        name = response["id"]
    assert len({run.conversation_id for run in log.runs}) == 1
    assert [request.body["query"].rpartition("\n\n")[2] for request in turns(log)] == [
        "SAY<<rezanzibar>>",
        "SAY<<requetzal>>",
        "SAY<<rexylophone>>",
    ]
    assert log.runs[2].history[-1] == ("assistant", "requetzal")
    stored = read_files(tmp_path)
    assert len(stored) > 1000
    assert not [word for word in ("zanzibar", "quetzal", "xylophone", "ukulele", name) if word.encode() in stored]
    # This search finds the text of a stored response.
    await post(http, proxy, input="zanzibar")
    assert b"zanzibar" in read_files(tmp_path)


async def test_a_stored_item_can_be_referenced(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await respond(client, "SAY<<one>>")
    again = [
        {"role": "user", "content": "SAY<<one>>"},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "SAY<<two>>"},
    ]
    second = await respond(client, again)
    assert second.output_text == "two"
    assert the_request(log, "SAY<<two>>").body["query"] == "SAY<<two>>"
    assert list(the_run(log, "SAY<<two>>").history) == [("user", "SAY<<one>>"), ("assistant", "one")]


async def test_another_end_users_item_cannot_be_referenced(client: AsyncOpenAI, log: DemoLog) -> None:
    first = await respond(client, "SAY<<one>>", user="anna")
    items = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "hi"}]
    for more in ({"user": "bert"}, {}):
        await expect_error(respond(client, items, **more), 400, None, "input[0].id")
    assert (await respond(client, items, user="anna")).status == "completed"


async def test_input_items_are_paginated(proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient) -> None:
    texts = [f"text {number}" for number in range(25)]
    response = await respond(client, [{"role": "user", "content": text} for text in texts])
    path = f"/responses/{response.id}/input_items"

    async def page(**query: Any) -> tuple[list[str], bool]:
        listed = await get(http, proxy, path, params=query)
        assert set(listed) == {"object", "data", "first_id", "last_id", "has_more"}
        assert listed["object"] == "list"
        names = [item["id"] for item in listed["data"]]
        assert (listed["first_id"], listed["last_id"]) == (names[0], names[-1])
        return [item["content"][0]["text"] for item in listed["data"]], listed["has_more"]

    assert await page() == (texts[:4:-1], True)
    assert await page(order="desc", limit=25) == (texts[::-1], False)
    assert await page(order="asc", limit=2) == (texts[:2], True)
    second = (await get(http, proxy, path, params={"order": "asc"}))["data"][1]
    assert second["type"] == "message"
    assert second["role"] == "user"
    assert await page(order="asc", after=second["id"], limit=3) == (texts[2:5], True)
    listed: list[Any] = [item async for item in client.responses.input_items.list(response.id)]
    assert [item.content[0].text for item in listed] == texts[::-1]
    for query, param in [({"order": "up"}, "order"), ({"limit": "0"}, "limit"), ({"limit": "x"}, "limit")]:
        reply = await http.get(f"{proxy.url}{path}", params=query)
        assert (reply.status_code, error_of(reply)["param"]) == (400, param)
    reply = await http.get(f"{proxy.url}{path}", params={"after": "msg_none"})
    assert (reply.status_code, error_of(reply)["param"]) == (400, "after")


async def test_a_deleted_response_is_a_404(proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient) -> None:
    response = await respond(client, "hello")
    reply = await http.delete(f"{proxy.url}/responses/{response.id}")
    assert reply.json() == {"id": response.id, "object": "response", "deleted": True}
    await not_found(await http.delete(f"{proxy.url}/responses/{response.id}"), "response_not_found")
    await expect_error(client.responses.retrieve(response.id), 404, "response_not_found")
    await expect_error(respond(client, "hi", previous_response_id=response.id), 400, "previous_response_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items"), ("GET", "?stream=true")],
)
@pytest.mark.parametrize("name", [UNKNOWN, "resp_1", "%00", "x" * 3000])
async def test_an_unknown_response_is_a_404(
    proxy: ProxyServer, http: httpx2.AsyncClient, name: str, method: str, path: str
) -> None:
    headers = {"content-type": "application/json"}
    reply = await http.request(method, f"{proxy.url}/responses/{name}{path}", headers=headers)
    await not_found(reply, "response_not_found")
    assert len(error_of(reply)["message"]) < 300


async def test_a_foreground_response_cannot_be_cancelled_or_streamed(
    proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient
) -> None:
    response = await respond(client, "hello")
    await expect_error(client.responses.cancel(response.id), 400, None, "response_id")
    reply = await http.get(f"{proxy.url}/responses/{response.id}", params={"stream": "true"})
    assert (reply.status_code, error_of(reply)["param"]) == (400, "stream")


# Unreachable state


async def test_without_state_responses_are_created_but_not_stored(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    (port,) = free_ports(1)
    key = "a-key-of-the-settings"  # which needs no state
    proxy = serve(state_url=f"valkey://127.0.0.1:{port}", api_keys=(key,))
    http.headers["Authorization"] = f"Bearer {key}"
    replies = await asyncio.gather(*(post(http, proxy, input="SAY<<here>>") for _ in range(3)))
    assert [reply.json()["status"] for reply in replies] == ["completed"] * 3
    streamed = await post(http, proxy, input="SAY<<here>>", stream=True)
    assert json.loads(streamed.text.split("\n\n")[-3].partition("data: ")[2])["type"] == "response.completed"
    name = replies[0].json()["id"]
    count = len(turns(log))
    for reply in (
        await http.get(f"{proxy.url}/responses/{name}"),
        await http.delete(f"{proxy.url}/responses/{name}"),
        await http.get(f"{proxy.url}/responses/{name}/input_items"),
        await post(http, proxy, previous_response_id=name),
        await post(http, proxy, conversation="conv_1"),
    ):
        assert reply.status_code == 503
        assert error_of(reply)["code"] == "state_unavailable"
    assert len(turns(log)) == count
