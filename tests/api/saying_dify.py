"""A Dify whose chat app says exactly what the test wants, and whose files are answers of the test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from openai_dify_proxy.settings import AppSettings
from tests.api.servers import app_settings, http_answer
from tests.upstream.raw_server import Answer, RawServer, by_path, raw_server, reply

FILE_ID = "6494c949-de7b-42ce-a28c-374bde984d1c"
FILE = f"/files/tools/{FILE_ID}.png"
LINK = f"{FILE}?timestamp=1795883998&nonce=50f0759451affebf29cda7fd715139e2&sign=p9n8E8aAF_hIEd5cMGVrAB3E0GU5Dtlf="


@asynccontextmanager
async def saying(texts: Iterable[str], file: Answer | None = None, **last: Any) -> AsyncIterator[RawServer]:
    """Serve a chat app that says ``texts``, one event each. ``file`` answers ``FILE``; ``last`` ends it."""
    ids = {"task_id": FILE_ID, "message_id": FILE_ID, "conversation_id": FILE_ID}
    events = [*({"event": "message", "answer": text} for text in texts), {"event": "message_end", **last}]
    body = "".join(f"data: {json.dumps(event | ids)}\n\n" for event in events)

    async def answer(_request: Any, writer: Any) -> None:
        writer.write(http_answer(200, body.encode(), "text/event-stream"))

    answers: dict[str, Answer] = {
        "/v1/info": reply(200, {"name": "a", "mode": "chat"}),
        "/v1/parameters": reply(200, {}),
        "/v1/chat-messages": answer,
    }
    async with raw_server(by_path(answers if file is None else {**answers, FILE: file})) as server:
        yield server


def app_of(server: RawServer) -> dict[str, AppSettings]:
    """Return the settings of its app."""
    return {"a": app_settings("a", "app-a", f"{server.origin}/v1")}


def files_requested(server: RawServer) -> list[str]:
    """Return the targets of the requests that are not for the API."""
    return [request.target for request in server.requests if not request.target.startswith("/v1/")]
