"""Recorded sessions of agents: the proxy's answers contain the calls that the programs understood and ran."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from msgspec import Struct, json, structs

from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.log import LoggedRun
from tests.api.chat_requests import Json
from tests.api.servers import ProxyServer
from tests.clients.recorded_programs import Recorded, recorded, stream_events

MODELS = ("demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-agent")
PATCH = "*** Begin Patch\n*** Update File: hello.txt\n@@\n-Hello, moon!\n+Hello, world!\n*** End Patch"


class Said(Struct, frozen=True):
    """A call or a text of an answer, without ids. ``content`` of a call: its arguments, or its free text."""

    kind: str
    name: str = ""
    content: Any = ""


class Answer(Struct, frozen=True):
    said: list[Said]
    ids: list[str]
    """The ids by which the program refers to the answer, in their order."""


async def test_codex_edits_a_file(demo: DemoServer, proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    for model, answers in await play_all(http, proxy, "codex-tools", 4):
        shown, corrected = answers[1].said[0].content, answers[3].said[0].content
        assert [answer.said for answer in answers] == [
            [Said("function_call", "exec_command", {"cmd": "cat hello.txt"})],
            [Said("message", content=shown)],
            [Said("custom_tool_call", "apply_patch", PATCH)],
            [Said("message", content=corrected)],
        ]
        assert shown.startswith("The result of exec_command is: ")
        assert shown.endswith("\nOutput:\nHello, moon!\n")
        assert corrected.startswith("The result of apply_patch is: ")
        assert corrected.endswith("\nSuccess. Updated the following files:\nM hello.txt\n")
        runs = runs_of(demo, model)
        assert len(runs) == 4
        assert len({run.conversation_id for run in runs}) == 1
        assert runs[1].question.startswith('<tool_result name="exec_command">\nChunk ID: ')
        assert runs[3].question.startswith('<tool_result name="apply_patch">\nExit code: 0\n')


async def test_cline_edits_a_file(demo: DemoServer, proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    arguments = {"path": "/home/user/project/hello.txt", "old_text": "moon", "new_text": "world"}
    for model, (call, answer) in await play_all(http, proxy, "cline", 2):
        assert call.said == [Said("function_call", "editor", arguments)]
        assert answer.said[0].content.startswith("The result of editor is: ")
        first, second = runs_of(demo, model)
        assert first.conversation_id == second.conversation_id
        assert second.question.startswith('<tool_result name="editor">\n{"query":"edit:/home/user/project/hello.txt"')


@pytest.mark.parametrize(
    ("question", "calls"),
    [
        ("What time is it? Use get_current_timestamp.", [Said("function_call", "get_current_timestamp", {})]),
        (
            "Look for 'Lugano' with search_chats.",
            [Said("function_call", "search_chats", {"query": "Lugano"})],
        ),
        (
            "Use search_notes('Lugano') and search_notes('Ticino').",
            [
                Said("function_call", "search_notes", {"query": "Lugano"}),
                Said("function_call", "search_notes", {"query": "Ticino"}),
            ],
        ),
    ],
)
async def test_open_webui_calls_its_tools(
    demo: DemoServer, proxy: ProxyServer, http: httpx2.AsyncClient, question: str, calls: list[Said]
) -> None:
    """Open WebUI's request with its 28 tools and another question, and then its results in the form in which it sends
    them: it repeats the calls as it received them, with ``index``.
    """
    request = recorded("open-webui/turn-1")
    messages: list[Json] = [{"role": "user", "content": question}]
    answer = await ask(http, proxy, with_body(request, messages=messages))
    assert answer.said == calls
    messages += [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "index": index,
                    "id": call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.encode(call.content).decode()},
                }
                for index, (call, call_id) in enumerate(zip(calls, answer.ids, strict=True))
            ],
        },
        *({"role": "tool", "tool_call_id": call_id, "content": f"found {call_id}"} for call_id in answer.ids),
    ]
    final = await ask(http, proxy, with_body(request, messages=messages))
    results = [f"The result of {call.name} is: found {id_}" for call, id_ in zip(calls, answer.ids, strict=True)]
    assert final.said == [Said("message", content="\n".join(results))]
    assert len({run.conversation_id for run in runs_of(demo, "demo-chat")}) == 1


def runs_of(demo: DemoServer, model: str) -> list[LoggedRun]:
    return [run for run in demo.log.runs if run.app == model]


async def play_all(
    http: httpx2.AsyncClient, proxy: ProxyServer, folder: str, turns: int
) -> list[tuple[str, list[Answer]]]:
    answers = await asyncio.gather(*(play(http, proxy, folder, turns, model) for model in MODELS))
    return list(zip(MODELS, answers, strict=True))


async def play(http: httpx2.AsyncClient, proxy: ProxyServer, folder: str, turns: int, model: str) -> list[Answer]:
    """Send the requests of a session, and compare each answer with what the next request contains of it."""
    answers: list[Answer] = []
    ids: dict[str, str] = {}
    requests = [recorded(f"{folder}/turn-{number}") for number in range(1, turns + 1)]
    for number, request in enumerate(requests):
        answer = await ask(http, proxy, with_body(renamed(request, ids), model=model))
        answers.append(answer)
        if number + 1 < turns:
            repeated = repeated_answer(request, requests[number + 1])
            assert answer.said == repeated.said
            ids.update(zip(repeated.ids, answer.ids, strict=True))
    return answers


def with_body(request: Recorded, **fields: Any) -> Recorded:
    return structs.replace(request, body={**request.body, **fields})


def renamed(request: Recorded, ids: dict[str, str]) -> Recorded:
    """Return a request with the proxy's ids in place of the recorded ones."""
    text = json.encode(request.body).decode()
    for old, new in ids.items():
        text = text.replace(old, new)
    return structs.replace(request, body=json.decode(text))


def repeated_answer(request: Recorded, following: Recorded) -> Answer:
    """Return the answer to ``request``, which the following request repeats before its new messages or results."""
    name = "messages" if "messages" in request.body else "input"
    new = following.body[name][len(request.body[name]) :]
    return read_message(new[0]) if name == "messages" else read_items([item for item in new if _is_output(item)])


def _is_output(item: Json) -> bool:
    return item.get("role") == "assistant" or item["type"] in ("function_call", "custom_tool_call")


async def ask(http: httpx2.AsyncClient, proxy: ProxyServer, request: Recorded) -> Answer:
    """Send a request and read the stream of its answer as the programs do."""
    events = await stream_events(http, proxy.origin, request)
    if request.path.endswith("/responses"):
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        return read_items([item for item in done if item["type"] != "reasoning"])
    return read_message(join_chunks(events))


def read_items(items: list[Json]) -> Answer:
    """Return the content of items of a response."""
    said, ids = [], []
    for item in items:
        ids.append(item["id"])
        if item["type"] == "message":
            said.append(Said("message", content="".join(part["text"] for part in item["content"])))
            continue
        ids.append(item["call_id"])
        is_function = item["type"] == "function_call"
        content = json.decode(item["arguments"]) if is_function else item["input"]
        said.append(Said(item["type"], item["name"], content))
    return Answer(said, ids)


def read_message(message: Json) -> Answer:
    """Return the content of an assistant's message."""
    calls = message.get("tool_calls") or []
    said = [Said("message", content=message["content"])] if message["content"] else []
    said += [
        Said("function_call", call["function"]["name"], json.decode(call["function"]["arguments"])) for call in calls
    ]
    return Answer(said, [call["id"] for call in calls])


def join_chunks(chunks: list[Json]) -> Json:
    """Return the message of a stream. Programs append what later deltas of a call contain, also to its name."""
    text = ""
    calls: list[Json] = []
    for delta in (choice["delta"] for chunk in chunks for choice in chunk["choices"]):
        text += delta.get("content") or ""
        for call in delta.get("tool_calls") or []:
            function = call["function"]
            if call["index"] == len(calls):
                calls.append({"id": call["id"], "type": call["type"], "function": {"name": "", "arguments": ""}})
            for name, more in function.items():
                calls[call["index"]]["function"][name] += more
    return {"content": text, "tool_calls": calls}
