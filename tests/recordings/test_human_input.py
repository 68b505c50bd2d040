"""Replay the recordings of paused runs: the pause, the form, its answer, and the rest of the run.

A ``PausedDify`` answers each route with the recordings of a scenario, in order; the last one of a route repeats.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy.settings import Settings
from tests.api.servers import ProxyServer, app_settings, http_answer, read_request, serving
from tests.api.slots import MEMORY
from tests.recordings.archive import Json, Recording, named
from tests.recordings.replay import MANNERS, Manner, wire

MAIN, RELEASE = "dify-1.16.1-main-2026-08-19", "dify-1.16.1"


@dataclass
class PausedDify:
    """A Dify with one chatflow. ``answers`` are the recordings by route, ``requests`` those of the proxy."""

    answers: dict[str, deque[Recording]]
    manner: Manner = "whole"
    requests: list[tuple[str, str, Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader, 0)) is not None:
                route = _route(request.method, request.path)
                self.requests.append((route, request.path.removeprefix("/v1"), request.body))
                for part in self._answer(route):
                    writer.write(part)
                    await writer.drain()
        except ConnectionError:
            pass  # the proxy closes the connection when it abandons a stream
        finally:
            writer.close()

    def bodies(self, route: str) -> list[Any]:
        return [body for each, _, body in self.requests if each == route]

    def paths(self, route: str) -> list[str]:
        return [path for each, path, _ in self.requests if each == route]

    def _answer(self, route: str) -> list[bytes]:
        waiting = self.answers.get(route)
        if waiting:
            return list(wire(waiting.popleft() if len(waiting) > 1 else waiting[0], self.manner))
        body: Json = {"user_input_form": []} if route == "parameters" else {"mode": "advanced-chat", "name": "human"}
        return [http_answer(200, json.dumps(body).encode(), "application/json", "X-Version: 1.16.1")]


def _route(method: str, path: str) -> str:
    """Return the name of a route, as scenarios have it."""
    path = path.removeprefix("/v1")
    if path.startswith("/form/"):
        return "submit" if method == "POST" else "form"
    if path.startswith("/workflow/"):
        return "snapshot" if "include_state_snapshot=true" in path else "events"
    return {"/chat-messages": "pause", "/parameters": "parameters"}.get(path, path.split("/")[1])


@asynccontextmanager
async def paused(
    folder: str, manner: Manner = "whole", **names: str | list[str]
) -> AsyncIterator[tuple[PausedDify, AsyncOpenAI]]:
    """Start a proxy in front of a ``PausedDify``; ``names`` are the recordings of ``folder`` by route."""
    lists = {route: [name] if isinstance(name, str) else name for route, name in names.items()}
    dify = PausedDify({route: deque(named(folder, each) for each in found) for route, found in lists.items()}, manner)
    async with serving(dify.serve) as port:
        url = f"http://127.0.0.1:{port}/v1"
        apps = {"human": app_settings("human", "app-human", url)}
        # In a state of its own: the recorded tokens repeat.
        options: Json = {"heartbeat": "off", "dify_max_concurrent": "off", "state_url": MEMORY}
        proxy = ProxyServer(Settings(dify_api_url=url, apps=apps, **options))
        proxy.__enter__()
        try:
            async with proxy.client(max_retries=0) as client:
                yield dify, client
        finally:
            await asyncio.to_thread(proxy.__exit__, None, None, None)  # this loop must serve Dify meanwhile


async def say(client: AsyncOpenAI, messages: list[Any], stream: bool, **more: Any) -> Any:
    """Return the final completion, and add its message to ``messages``."""
    if stream:
        async with client.chat.completions.stream(model="human", messages=messages, **more) as events:
            completion: Any = await events.get_final_completion()
    else:
        completion = await client.chat.completions.create(model="human", messages=messages, **more)
    messages.append(completion.choices[0].message.model_dump(include={"role", "content", "tool_calls"}))
    return completion.choices[0]


# Version, the recordings by route, the text before the pause, the answer, the inputs that Dify gets, the rest's text.
LOOPS: dict[str, tuple[str, Json, str, str, Json, str]] = {
    "main: read from the start": (
        MAIN,
        {
            "pause": "human-pause",
            "form": "human-form-get",
            "submit": "human-form-post",
            "events": "human-resume-events",
        },
        "Before. ",
        '{"action": "ok", "inputs": {"comment": "fine"}}',
        {"inputs": {"comment": "fine"}, "action": "ok"},
        "Approved: fine",
    ),
    "1.16.1: read from the start": (
        RELEASE,
        {
            "pause": "resume-single-2-pause",
            "form": "human-form-get",
            "submit": "resume-single-2-post",
            "events": "resume-single-2-resume",
        },
        "Before the pause. ",
        "YES",
        {"inputs": {"note": ""}, "action": "yes"},
        "Approved x",
    ),
    "1.16.1: the run has ended before it is read": (
        RELEASE,
        {
            "pause": "resume-single-1-pause",
            "form": "human-form-get",
            "submit": "resume-single-1-post",
            "events": "human-events-finished",
        },
        "Before the pause. ",
        '{"action": "Yes", "inputs": {"note": "LGTM"}}',
        {"inputs": {"note": "LGTM"}, "action": "yes"},
        "Approved LGTM",
    ),
    "1.16.1: the events break off once": (
        RELEASE,
        {
            "pause": "human-pause-4",
            "form": "human-form-get",
            "submit": "human-form-post",
            "events": "human-resume-events",
            "snapshot": "human-events-finished-snapshot",
        },
        "Before the pause. ",
        '"yes"',
        {"inputs": {"note": ""}, "action": "yes"},
        "Approved LGTM",
    ),
    "1.16.1: they break off twice": (
        RELEASE,
        {
            "pause": "resume-after-abandoned-2-pause",
            "form": "human-form-get",
            "submit": "resume-after-abandoned-2-post",
            "events": "human-resume-events-BROKEN",
            "snapshot": ["human-events-paused", "human-events-finished"],
        },
        "Before the pause. ",
        '{"action": "yes", "inputs": {"note": "LGTM"}}',
        {"inputs": {"note": "LGTM"}, "action": "yes"},
        "Approved LGTM",
    ),
    "1.16.1: only pings, and another user submits": (
        RELEASE,
        {
            "pause": "resume-after-abandoned-1-pause",
            "form": "human-form-get",
            "submit": ["human-form-post-3"],
            "events": "resume-after-abandoned-2-abandoned",
            "snapshot": "human-events-finished",
        },
        "Before the pause. ",
        '{"action": "yes", "inputs": {"note": "late"}}',
        {"inputs": {"note": "late"}, "action": "yes"},
        "Approved LGTM",
    ),
    "1.16.1: the other action": (
        RELEASE,
        {
            "pause": "human-second-turn-while-paused",
            "form": "human-form-get",
            "submit": ["human-form-post-no", "resume-after-abandoned-1-post"],
            "events": "resume-single-2-resume",
        },
        "Before the pause. ",
        " no ",
        {"inputs": {"note": ""}, "action": "no"},
        "Approved x",
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
async def test_the_call_and_its_result_resume_the_run(
    loop: tuple[str, Json, str, str, Json, str], manner: Manner, stream: bool
) -> None:
    folder, names, before, result, submitted, rest = loop
    pause = named(folder, names["pause"]).events_named("workflow_paused")[0]
    (reason,) = pause["data"]["reasons"]
    async with paused(folder, manner, **names) as (dify, client):
        messages: list[Any] = [{"role": "user", "content": "please"}]
        choice = await say(client, messages, stream, extra_body={"human_input": "tool"})
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", before)
        (call,) = choice.message.tool_calls
        assert call.function.name == "dify_human_input"
        assert json.loads(call.function.arguments) == shown(reason)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        choice = await say(client, messages, stream)
        assert (choice.finish_reason, choice.message.content) == ("stop", rest)
    (pausing,) = dify.bodies("pause")
    assert dify.bodies("submit") == [{**submitted, "user": pausing["user"]}]
    assert set(dify.paths("submit")) == {f"/form/human_input/{reason['form_token']}"}
    run = pause["workflow_run_id"]
    events = f"/workflow/{run}/events?user={pausing['user']}"
    assert dify.paths("events") == [events]
    again = names.get("snapshot", [])
    attempts = 1 if isinstance(again, str) else len(again)
    assert dify.paths("snapshot") == [f"{events}&include_state_snapshot=true"] * attempts


def shown(reason: Json) -> Json:
    """Return a recorded form as clients see it."""
    return {
        "token": reason["form_token"],
        "title": reason["node_title"],
        "content": reason["form_content"],
        "inputs": [
            {"name": each["output_variable_name"], "type": each["type"], "default": each["default"]}
            for each in reason["inputs"]
        ],
        "actions": [{"id": action["id"], "title": action["title"]} for action in reason["actions"]],
        "expires_at": reason["expiration_time"],
        "approval_channels": reason["approval_channels"],
    }


# The route that rejects the answer, its recording, and the status, code and param of the error.
REJECTIONS = {
    "answered already, main": (MAIN, {"submit": "human-form-post-again"}, 412, "human_input_form_submitted"),
    "answered already": (RELEASE, {"form": "human-form-get-submitted"}, 412, "human_input_form_submitted"),
    "unknown form": (RELEASE, {"form": "human-form-get-unknown"}, 404, "human_input_form_not_found"),
    "missing input": (RELEASE, {"submit": "human-form-post-missinginput"}, 400, "invalid_form_data"),
    "missing action": (RELEASE, {"submit": "human-form-post-noaction"}, 400, "invalid_param"),
    "another user's run": (RELEASE, {"events": "human-events-otheruser"}, 404, "not_found"),
    "unknown run": (RELEASE, {"events": "human-events-unknown"}, 404, "not_found"),
    "no run's id": (RELEASE, {"events": "human-events-taskid"}, 404, "not_found"),
}
_GOOD = {
    MAIN: {
        "pause": "human-pause",
        "form": "human-form-get",
        "submit": "human-form-post",
        "events": "human-resume-events",
    },
    RELEASE: {
        "pause": "human-pause-4",
        "form": "human-form-get",
        "submit": "human-form-post",
        "events": "resume-single-2-resume",
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rejection", REJECTIONS.values(), ids=REJECTIONS)
async def test_rejected_answers(rejection: tuple[str, Json, int, str], stream: bool) -> None:
    folder, names, status, code = rejection
    async with paused(folder, **{**_GOOD[folder], **names}) as (dify, client):
        messages: list[Any] = [{"role": "user", "content": "please"}]
        choice = await say(client, messages, stream)
        action = named(folder, _GOOD[folder]["pause"]).events_named("workflow_paused")[0]["data"]["reasons"][0][
            "actions"
        ][0]
        assert f"[{action['title']}]" in choice.message.content
        messages.append({"role": "user", "content": action["title"]})
        with pytest.raises(openai.APIStatusError) as error:
            await say(client, messages, stream)
        assert (error.value.status_code, error.value.code) == (status, code)
        for route, name in names.items():  # Dify accepts the next attempt
            dify.answers[route] = deque(
                [named(folder, _GOOD[folder][route])] if status != 412 else [named(folder, name)]
            )
        if status == 412:
            with pytest.raises(openai.APIStatusError, match="answered already"):
                await say(client, messages, stream)
        else:
            assert (await say(client, messages, stream)).message.content.startswith("Approved ")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("snapshot", ["human-events-snapshot-paused", "human-events-after-stop"])
async def test_another_message_shows_the_form_again(snapshot: str, stream: bool) -> None:
    names: Json = {**_GOOD[RELEASE], "snapshot": snapshot, "workflows": "human-run-get-paused"}
    async with paused(RELEASE, **names) as (dify, client):
        messages: list[Any] = [{"role": "user", "content": "please"}]
        first = await say(client, messages, stream)
        messages.append({"role": "user", "content": "What is this?"})
        again = await say(client, messages, stream)
        form = first.message.content.removeprefix("Before the pause. \n\n")
        assert again.message.content == f"This conversation waits for an answer to a form:\n\n{form}"
        messages.append({"role": "user", "content": "Yes"})
        assert (await say(client, messages, stream)).message.content == "Approved x"
    assert len(dify.bodies("pause")) == 1


async def test_a_run_that_went_on_elsewhere_does_not_hold_the_conversation() -> None:
    names: Json = {**_GOOD[RELEASE], "workflows": "workflow-run-get"}
    assert named(RELEASE, "workflow-run-get").json()["status"] == "succeeded"
    async with paused(RELEASE, **names) as (dify, client):
        messages: list[Any] = [{"role": "user", "content": "please"}]
        await say(client, messages, stream=False)
        messages.append({"role": "user", "content": "And now?"})
        await say(client, messages, stream=False)
    assert [body["query"] for body in dify.bodies("pause")] == ["please", "And now?"]
