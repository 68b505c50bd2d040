"""Replay requests of real programs against the proxy; ``recorded/README.md`` lists the programs and how they were run.

A program sends earlier replies back to the server. A replayed request therefore contains the proxy's replies instead of
the recorded ones, in the form in which the program sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
from msgspec import Struct, json, structs

from tests.api.chat_requests import Json

RECORDED = Path(__file__).parent / "recorded"


class Recorded(Struct, frozen=True):
    """A recorded request; a GET has no body."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Program(Struct, frozen=True):
    """How a recorded program sends a reply back to the server.

    ``recorded`` is the text of reply number ``{}`` in its requests; ``form`` turns a reply into such a text.
    """

    recorded: str
    form: Callable[[str], str] = str


class Reply(Struct, frozen=True):
    """An answer of the proxy; ``id`` is the message's id in the Responses API, else empty."""

    text: str
    id: str = ""


_REPLY = "Answer {}.\n\n    indented line\n\nThe end.  "
_OPEN_WEBUI = Program(_REPLY.strip(), str.strip)
PROGRAMS = {
    "open-webui": _OPEN_WEBUI,
    "open-webui-document": _OPEN_WEBUI,
    "n8n-chat": Program(_REPLY),
    "n8n-chat-stream": Program(_REPLY),
    "n8n-responses": Program("Answer {}."),
    "codex": Program("Answer for request {}."),
}
"""The programs of the recorded conversations, by folder."""


def recorded(name: str) -> Recorded:
    """Read the request ``folder/name`` and restore its tools, which the recordings contain only for the first turn."""
    request = _read(name)
    if request.body is not None and request.body.get("tools") == []:
        tools = _read(f"{Path(name).parent}/turn-1").body["tools"]
        request = structs.replace(request, body={**request.body, "tools": tools})
    return request


def _read(name: str) -> Recorded:
    return json.decode((RECORDED / f"{name}.json").read_bytes(), type=Recorded)


def last_text(request: Recorded) -> str:
    """Return the text of the last message, which is the user's."""
    message = (request.body.get("messages") or request.body["input"])[-1]
    assert message["role"] == "user"
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


class Player:
    """A program that sends the requests in ``folder`` to the proxy at ``origin``, for ``model``."""

    def __init__(self, http: httpx2.AsyncClient, origin: str, folder: str, model: str) -> None:
        self.replies: list[Reply] = []
        self._http = http
        self._origin = origin
        self._folder = folder
        self._model = model

    async def turn(self, name: str) -> Recorded:
        """Send a turn of the conversation, whose reply all later requests contain. Return the request as sent."""
        request = self._request(name)
        self.replies.append(await send(self._http, self._origin, request))
        return request

    async def side_request(self, name: str) -> Recorded:
        """Send a request whose reply no later request contains. Return the request as sent."""
        request = self._request(name)
        await send(self._http, self._origin, request)
        return request

    def _request(self, name: str) -> Recorded:
        request = recorded(f"{self._folder}/{name}")
        body = with_replies(request.body, self.replies, PROGRAMS[self._folder])
        return structs.replace(request, body={**body, "model": self._model})


def with_replies(body: Json, replies: Sequence[Reply], program: Program) -> Json:
    """Return the body with ``replies`` in place of the recorded ones, without their reasoning items."""
    text = json.encode(body).decode()
    for number, reply in enumerate(replies, 1):
        text = text.replace(_inner(program.recorded.format(number)), _inner(program.form(reply.text)))
        text = text.replace(f"msg_{number:048}", reply.id)
    changed: Json = json.decode(text)
    if "input" in changed:
        changed["input"] = [item for item in changed["input"] if item["type"] != "reasoning"]
    return changed


def _inner(text: str) -> str:
    """Escape a text for use inside a JSON string."""
    return json.encode(text).decode()[1:-1]


async def send(http: httpx2.AsyncClient, origin: str, request: Recorded) -> Reply:
    """Send a request and read the answer, which must be complete."""
    if not request.body["stream"]:
        return _read_whole((await _post(http, origin, request)).json())
    events = await stream_events(http, origin, request)
    if request.path.endswith("/responses"):
        return _read_whole(events[-1]["response"])
    deltas = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    return Reply("".join(deltas))


async def stream_events(http: httpx2.AsyncClient, origin: str, request: Recorded) -> list[Json]:
    """Send a request and return the events or chunks of the answer, which must be complete."""
    answer = await _post(http, origin, request)
    frames = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    assert frames.pop() == "[DONE]"
    events: list[Json] = [json.decode(frame) for frame in frames]
    if request.path.endswith("/responses"):
        assert events[-1]["type"] == "response.completed"
    return events


async def _post(http: httpx2.AsyncClient, origin: str, request: Recorded) -> httpx2.Response:
    content = json.encode(request.body)
    answer = await http.request(request.method, f"{origin}{request.path}", headers=request.headers, content=content)
    assert answer.status_code == 200, answer.text
    return answer


def _read_whole(answer: Json) -> Reply:
    if "choices" in answer:
        return Reply(answer["choices"][0]["message"]["content"])
    (message,) = (item for item in answer["output"] if item["type"] == "message")
    return Reply("".join(part["text"] for part in message["content"]), message["id"])
