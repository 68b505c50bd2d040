"""Short ways to ask for responses, and to see what Dify was asked then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from openai_dify_proxy_demo import DemoLog
from openai_dify_proxy_demo.log import LoggedRequest, LoggedRun
from tests.api.chat_requests import Json, error_of, turns
from tests.api.servers import ProxyServer
from tests.response_events import events_of

# What openai-openapi and the Open Responses specification require together.
KEYS = {
    *("id", "object", "created_at", "status", "background", "completed_at", "error", "frequency_penalty"),
    *("incomplete_details", "instructions", "max_output_tokens", "max_tool_calls", "model", "output"),
    *("parallel_tool_calls", "presence_penalty", "previous_response_id", "prompt_cache_key", "prompt_cache_retention"),
    *("reasoning", "safety_identifier", "service_tier", "store", "temperature", "text", "tool_choice", "tools"),
    *("top_logprobs", "top_p", "truncation", "usage", "user", "metadata"),
}


async def respond(client: AsyncOpenAI, text: Any, model: str = "demo-chat", **more: Any) -> Response:
    """A response whose turn has ended."""
    response: Response = await client.responses.create(model=model, input=text, **more)
    return response


def dify_conversation(response: Response) -> str | None:
    """The conversation of Dify's that a response was made in."""
    found: str | None = (response.model_extra or {})["dify"].get("conversation_id")
    return found


def the_run(log: DemoLog, question: str) -> LoggedRun:
    """The one run whose question ends so."""
    (run,) = [run for run in log.runs if run.question.endswith(question)]
    return run


def the_request(log: DemoLog, question: str) -> LoggedRequest:
    """The one request for a turn whose question ends so."""
    (found,) = [request for request in turns(log) if _query(request).endswith(question)]
    return found


def _query(request: LoggedRequest) -> str:
    return str(request.body.get("query") or request.body["inputs"].get("query", ""))


def transcript(*messages: tuple[str, str], question: str) -> str:
    """A question that carries earlier messages, as docs/apps.md words it."""
    lines = "\n\n".join(f"{role}: {text}" for role, text in messages)
    return f"The conversation so far, oldest message first:\n\n{lines}\n\nThe new message to answer:\n\n{question}"


async def refused(asked: Any, status: int, code: str | None, param: str | None = None) -> None:
    """Expects a request of the official client's to be refused so."""
    with pytest.raises(openai.APIStatusError) as told:
        await asked
    assert (told.value.status_code, told.value.code) == (status, code)
    if param is not None:
        assert told.value.param == param


async def get(http: httpx2.AsyncClient, proxy: ProxyServer, path: str, **more: Any) -> Json:
    reply = await http.get(f"{proxy.url}{path}", **more)
    assert reply.status_code == 200, reply.text
    body: Json = reply.json()
    return body


async def not_found(reply: httpx2.Response, code: str) -> None:
    assert reply.status_code == 404
    assert error_of(reply)["code"] == code


async def stream_of(http: httpx2.AsyncClient, proxy: ProxyServer, text: Any, model: str, **more: Any) -> list[Json]:
    """The events of a streamed response, whose frames are as they must be."""
    body = {"model": model, "input": text, "stream": True, **more}
    reply = await http.post(f"{proxy.url}/responses", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return events_of(reply.content)


def kept_in(directory: Path) -> bytes:
    """All bytes of the files in a directory."""
    return b"".join(path.read_bytes() for path in directory.iterdir())


def text_of(events: list[Json]) -> str:
    """What the deltas of a stream add up to."""
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
