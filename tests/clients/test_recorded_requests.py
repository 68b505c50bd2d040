"""Recorded requests of Open WebUI, n8n and Codex reach one Dify conversation, which receives only the new text."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import uuid4

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.log import LoggedRun
from tests.api.servers import (
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    frame,
    raw_dify,
    scripted,
)
from tests.clients.recorded_programs import PROGRAMS, Player, Program, Recorded, last_text, recorded, send

TURNS = ("turn-1", "turn-2", "turn-3")
MODELS = (
    "demo-chat",
    "demo-agent-chat",
    "demo-advanced-chat",
    "demo-agent",
    "demo-chat@0.15",
    "demo-agent-chat@1.11",
    "demo-advanced-chat@1.13",
)
WITHOUT_A_CHAT = ("queries", "image-prompt", "emoji", "autocomplete", "merge-answers")
"""Side calls in which Open WebUI does not name the chat."""


def runs_of(demo: DemoServer, model: str) -> list[LoggedRun]:
    name, _, version = model.partition("@")
    return [run for run in demo.log.runs if (run.app, run.dialect) == (name, version or "1.16")]


def question_of(run: LoggedRun) -> str:
    """Return the question without the instructions about the tools, which the first one of a conversation contains."""
    return run.question.partition("\n\n<instructions>\n")[0]


@pytest.mark.parametrize("folder", PROGRAMS)
async def test_three_turns_are_one_conversation(
    demo: DemoServer, proxy: ProxyServer, http: httpx2.AsyncClient, folder: str
) -> None:
    players = {model: Player(http, proxy.origin, folder, model) for model in MODELS}
    sent = dict(zip(MODELS, await asyncio.gather(*map(play_turns, players.values())), strict=True))
    for model, player in players.items():
        first, second, third = runs_of(demo, model)
        questions = [last_text(request) for request in sent[model]]
        assert len({run.conversation_id for run in (first, second, third)}) == 1
        assert len({run.user for run in (first, second, third)}) == 1
        assert question_of(first).endswith(questions[0])
        assert [second.question, third.question] == questions[1:]
        assert [reply.text for reply in player.replies] == [first.answer, second.answer, third.answer]
        assert list(third.history) == [
            ("user", first.question),
            ("assistant", first.answer),
            ("user", second.question),
            ("assistant", second.answer),
        ]


async def play_turns(player: Player) -> list[Recorded]:
    return [await player.turn(name) for name in TURNS]


async def test_unchanged_requests_stay_in_one_conversation(http: httpx2.AsyncClient) -> None:
    """Dify returns the recorded replies, with reasoning and white space around them."""
    await asyncio.gather(*(play_unchanged(http, folder, program) for folder, program in PROGRAMS.items()))


async def play_unchanged(http: httpx2.AsyncClient, folder: str, program: Program) -> None:
    turns_in: Counter[str] = Counter()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        conversation = request.body.get("conversation_id") or str(uuid4())
        turns_in[conversation] += 1
        text = f"<think>\nThinking it over.\n</think>\n\n{program.recorded.format(turns_in[conversation])}  "
        message = frame("message", answer=text, conversation_id=conversation)
        end = frame("message_end", metadata={}, conversation_id=conversation)
        await scripted([SSE_HEAD, chunk(message, end), LAST_CHUNK])(request, writer)

    requests = [recorded(f"{folder}/{name}") for name in TURNS]
    async with raw_dify(answer) as dify:
        apps = {"demo-chat": app_settings("demo-chat", "app-demo-chat", dify.url)}
        with ProxyServer(Settings(dify_api_url=dify.url, apps=apps, state_url=SecretStr("memory://"))) as proxy:
            for request in requests:
                await send(http, proxy.origin, request)
    first, second, third = (turn.body for turn in dify.turns)
    (conversation,) = turns_in
    assert not first.get("conversation_id")
    assert [second["conversation_id"], third["conversation_id"]] == [conversation] * 2
    assert [second["query"], third["query"]] == [last_text(request) for request in requests[1:]]


async def test_open_webui(demo: DemoServer, proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    """Play a chat with all of Open WebUI's side calls, then regenerate an answer, then edit a question."""
    player = Player(http, proxy.origin, "open-webui", "demo-chat")
    first, title = await asyncio.gather(player.turn("turn-1"), player.side_request("title"))
    after_first = await asyncio.gather(*map(player.side_request, ("tags", "follow-ups-1")))
    second, *elsewhere = await asyncio.gather(player.turn("turn-2"), *map(player.side_request, WITHOUT_A_CHAT))
    after_second = await player.side_request("follow-ups-2")
    third = await player.turn("turn-3")
    await asyncio.gather(player.side_request("turn-3"), player.side_request("edit"))

    chat, *others = conversations_of(demo)
    replies = [reply.text for reply in player.replies]
    questions = [last_text(request) for request in (first, second, third)]
    assert [question_of(run) for run in chat] == questions
    assert [text for _, text in chat[-1].history] == [chat[0].question, replies[0], questions[1], replies[1]]

    assert all(len(runs) == 1 for runs in others)
    alone = {question_of(runs[0]): list(runs[0].history) for runs in others}
    for side_call in (title, *after_first, *elsewhere, after_second):
        assert alone.pop(last_text(side_call)) == []
    (again,) = (question for question in alone if question.endswith(questions[2]))
    (edited,) = (question for question in alone if question.endswith("And of Spain?"))
    assert alone == {again: [], edited: []}
    assert all(text.strip() in again for text in (questions[0], replies[0], questions[1], replies[1]))
    assert all(text in edited for text in (questions[0], replies[0]))
    assert "Italy" not in edited


def conversations_of(demo: DemoServer) -> list[list[LoggedRun]]:
    """Group the runs by conversation, the longest conversation first."""
    runs: dict[str, list[LoggedRun]] = {}
    for run in demo.log.runs:
        runs.setdefault(run.conversation_id, []).append(run)
    return sorted(runs.values(), key=len, reverse=True)


async def test_open_webui_with_a_document(demo: DemoServer, proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    """Each question includes the document, but the next request repeats the question without it."""
    player = Player(http, proxy.origin, "open-webui-document", "demo-chat")
    sent = await play_turns(player)
    assert [message["content"] for message in sent[2].body["messages"][::2]][:2] == [
        "Where is Lugano?",
        "How many people live there?",
    ]
    runs = runs_of(demo, "demo-chat")
    assert len({run.conversation_id for run in runs}) == 1
    assert [question_of(run) for run in runs] == [last_text(request) for request in sent]
    assert all("<source id=" in run.question for run in runs)


async def test_open_webui_reads_the_models(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    request = recorded("open-webui/models")
    answer = await http.request(request.method, f"{proxy.origin}{request.path}", headers=request.headers)
    assert "demo-chat" in [model["id"] for model in answer.json()["data"]]
