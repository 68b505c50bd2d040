"""Side calls of chat clients: they never continue a conversation and never affect one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import Json, chunks_of, error_of, the_turn, turns
from tests.api.chats import Chat, assert_continues, at_once, messages_of, the_request
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer

RECORDED = Path(__file__).parent.parent / "clients" / "recorded"

EMPTY_ANSWERS: dict[str, Any] = {
    "open-webui/title": {"title": ""},
    "open-webui/tags": {"tags": []},
    "open-webui/follow-ups-1": {"follow_ups": []},
    "open-webui/follow-ups-2": {"follow_ups": []},
    "open-webui/queries": {"queries": []},
    "open-webui/autocomplete": {"text": ""},
    "open-webui/emoji": "",
    "open-webui/image-prompt": "",
    "librechat/title": "",
    "librechat/title-structured": {"language": "", "title": ""},
}
"""The empty answer to each side call: exact text, or the value of JSON."""

CALLS = (*EMPTY_ANSWERS, "open-webui/merge-answers")


def recorded(name: str, **more: Any) -> tuple[Json, dict[str, str]]:
    """Return body and headers of a recorded request. ``more`` replaces fields of the body."""
    request = json.loads((RECORDED / f"{name}.json").read_text())
    names = {"Authorization", "Accept-Encoding", "Content-Type"}
    headers = {key: value for key, value in request["headers"].items() if key not in names}
    return {**request["body"], **more}, headers


async def play(
    http: httpx2.AsyncClient, proxy: ProxyServer, name: str, headers: dict[str, str] | None = None, **more: Any
) -> httpx2.Response:
    body, own_headers = recorded(name, model="demo-chat", **more)
    reply = await http.post(f"{proxy.url}/chat/completions", json=body, headers=headers or own_headers)
    assert reply.status_code == 200
    return reply


def answer_of(reply: httpx2.Response, *, stream: bool) -> str:
    if not stream:
        return str(reply.json()["choices"][0]["message"]["content"])
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks_of(reply.text) for choice in chunk["choices"]
    )


def the_question(name: str) -> str:
    body, _ = recorded(name)
    return str(body["messages"][-1]["content"])


def parsed(answer: str, expected: object) -> object:
    """Return the answer, decoded unless plain text is expected."""
    return answer if isinstance(expected, str) else json.loads(answer)


# By default the app answers them


@pytest.mark.parametrize("named", [False, True], ids=["by history", "by chat id"])
async def test_a_side_call_between_two_turns_does_not_affect_the_conversation(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, named: bool
) -> None:
    """Including side calls with the headers of the same chat."""
    async with proxy.client() as client:

        async def converse(name: str) -> None:
            _, headers = recorded(name)
            if named:
                headers["X-OpenWebUI-Chat-Id"] = f"chat {name}"
            chat = Chat(client, "demo-chat", more={"extra_headers": headers if named else {}})
            await chat.say(f"before {name} SAY<<yes>>")
            for stream in (False, True):
                await play(http, proxy, name, headers=headers if named else {}, stream=stream)
            await chat.say(f"after {name}")
            assert_continues(log, f"after {name}", chat.conversation_id, *messages_of(chat)[:2])
            calls = [request for request in turns(log) if the_question(name) in request.body["query"]]
            assert len(calls) == 2
            assert not any("conversation_id" in request.body for request in calls)

        await at_once(converse(name) for name in CALLS)


@pytest.mark.parametrize("name", CALLS)
async def test_a_side_call_cannot_be_continued(
    client: AsyncOpenAI, proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, name: str
) -> None:
    """Its conversation in Dify is used only for this call."""
    reply = await play(http, proxy, name, stream=False)
    messages = [
        {"role": "user", "content": the_question(name)},
        {"role": "assistant", "content": answer_of(reply, stream=False)},
    ]
    more = {"extra_headers": recorded(name)[1]}
    await Chat(client, "demo-chat", more=more, messages=messages).say(f"on from {name}")
    assert "conversation_id" not in the_request(log, f"on from {name}").body


async def test_repeated_side_calls_are_equal_requests(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    for _ in range(2):
        await play(http, proxy, "open-webui/follow-ups-1")
    first, second = turns(log)
    assert first.body == second.body


# Another app answers them, or none


async def test_task_model_chooses_the_app_for_side_calls(serve: Serve, http: httpx2.AsyncClient, log: DemoLog) -> None:
    proxy = serve(task_model="demo-workflow")
    for name in CALLS:
        log.clear()
        reply = await play(http, proxy, name, stream=False)
        request = the_turn(log)
        assert (request.path, request.key) == ("/v1/workflows/run", "app-demo-workflow")
        question, _, _ = request.body["inputs"]["query"].partition("\n\n<instructions>")
        assert question == the_question(name)
        assert reply.json()["model"] == "demo-chat"
    async with proxy.client() as client:
        await Chat(client, "demo-chat").say("a turn")
    assert the_request(log, "a turn").key == "app-demo-chat"


async def test_task_model_answers_for_unknown_models(serve: Serve, http: httpx2.AsyncClient, log: DemoLog) -> None:
    """A chat client may be configured with an OpenAI model for titles."""
    proxy = serve(task_model="demo-workflow", default_app=None)
    body, headers = recorded("librechat/title", model="gpt-4o-mini", stream=False)
    reply = await http.post(f"{proxy.url}/chat/completions", json=body, headers=headers)
    assert (reply.status_code, reply.json()["model"]) == (200, "gpt-4o-mini")
    assert the_turn(log).key == "app-demo-workflow"


@pytest.mark.parametrize("stream", [False, True])
async def test_side_calls_may_be_switched_off(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    proxy = serve(task_calls="off")
    for name, empty in EMPTY_ANSWERS.items():
        reply = await play(http, proxy, name, stream=stream)
        assert parsed(answer_of(reply, stream=stream), empty) == empty
        last = chunks_of(reply.text)[-1] if stream else reply.json()
        assert last["choices"][0]["finish_reason"] == "stop"
    assert not log.requests


async def test_switched_off_side_calls_get_empty_answers_from_responses(serve: Serve, log: DemoLog) -> None:
    async with serve(task_calls="off").client() as client:
        for name, empty in EMPTY_ANSWERS.items():
            body, headers = recorded(name)
            request: dict[str, Any] = {"model": "demo-chat", "input": body["messages"], "extra_headers": headers}
            response = await client.responses.create(**request)
            assert (response.status, parsed(response.output_text, empty)) == ("completed", empty)
            text = ""
            async with client.responses.stream(**request) as stream:
                async for event in stream:
                    text += event.delta if event.type == "response.output_text.delta" else ""
                assert (await stream.get_final_response()).output_text == text
            assert parsed(text, empty) == empty
    assert not turns(log)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_side_call_without_an_empty_answer_reaches_dify_although_switched_off(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    """A person requested the merged answer of several models, so no empty answer makes sense."""
    await play(http, serve(task_calls="off"), "open-webui/merge-answers", stream=stream)
    assert the_question("open-webui/merge-answers") in the_turn(log).body["query"]


async def test_switched_off_side_calls_need_a_key(serve: Serve, http: httpx2.AsyncClient) -> None:
    """With side calls off, authentication is still required."""
    proxy = serve(task_calls="off", api_keys=("key",))
    body, headers = recorded("open-webui/title")
    reply = await http.post(f"{proxy.url}/chat/completions", json=body, headers=headers)
    assert reply.status_code == 401


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
async def test_switched_off_side_calls_to_unknown_models_are_rejected(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, path: str
) -> None:
    body, headers = recorded("open-webui/tags", model="no-such-model")
    if path == "responses":
        body["input"] = body.pop("messages")
    reply = await http.post(f"{serve(task_calls='off').url}/{path}", json=body, headers=headers)
    assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")


# Turns that resemble side calls


def look_alikes() -> dict[str, list[Json]]:
    """Return messages of people that contain the text of a side call."""
    title = the_question("open-webui/title")
    return {
        "pasted": [{"role": "user", "content": f"What does this do?\n{title}"}],
        "quoted": [{"role": "user", "content": f"{title}\n\nExplain this prompt."}],
        "later": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": title},
        ],
        "first of two": [{"role": "user", "content": title}, {"role": "user", "content": "Explain this prompt."}],
        "a task": [{"role": "user", "content": "### Task:\nWrite a poem.\n<chat_history>\n</chat_history>"}],
        "retrieval": [{"role": "user", "content": the_question("open-webui-document/turn-1")}],
    }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", look_alikes())
async def test_a_turn_that_resembles_a_side_call_is_a_turn(serve: Serve, log: DemoLog, name: str, stream: bool) -> None:
    """The requested app answers it, and its conversation can be continued."""
    async with serve(task_calls="off", task_model="demo-workflow").client() as client:
        *history, last = look_alikes()[name]
        chat = Chat(client, "demo-chat", stream, {"user": f"{name} {stream}"}, [*history, last])
        assert await chat.answer()
        await chat.say(f"and then {name}")
        assert turns(log)[-1].body["conversation_id"] == chat.conversation_id
        assert len(turns(log)) == 2
