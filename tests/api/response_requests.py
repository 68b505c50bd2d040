"""Send Responses requests to the proxy, and read its responses and the demo's log."""

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

# The keys that openai-openapi or the Open Responses specification requires.
KEYS = {
    *("id", "object", "created_at", "status", "background", "completed_at", "error", "frequency_penalty"),
    *("incomplete_details", "instructions", "max_output_tokens", "max_tool_calls", "model", "output"),
    *("parallel_tool_calls", "presence_penalty", "previous_response_id", "prompt_cache_key", "prompt_cache_retention"),
    *("reasoning", "safety_identifier", "service_tier", "store", "temperature", "text", "tool_choice", "tools"),
    *("top_logprobs", "top_p", "truncation", "usage", "user", "metadata"),
}


async def respond(client: AsyncOpenAI, text: Any, model: str = "demo-chat", **more: Any) -> Response:
    """Create a response and return it after its turn."""
    response: Response = await client.responses.create(model=model, input=text, **more)
    return response


def dify_conversation(response: Response) -> str | None:
    """Return the id of the Dify conversation that holds a response."""
    conversation_id: str | None = (response.model_extra or {})["dify"].get("conversation_id")
    return conversation_id


def the_run(log: DemoLog, question: str) -> LoggedRun:
    """Return the only run whose question ends with ``question``."""
    (run,) = [run for run in log.runs if run.question.endswith(question)]
    return run


def the_request(log: DemoLog, question: str) -> LoggedRequest:
    """Return the only request for a turn whose query ends with ``question``."""
    (request,) = [request for request in turns(log) if _query(request).endswith(question)]
    return request


def _query(request: LoggedRequest) -> str:
    return str(request.body.get("query") or request.body["inputs"].get("query", ""))


def transcript(*messages: tuple[str, str], question: str) -> str:
    """Return the query that holds earlier messages and the question, as documented in docs/apps.md."""
    lines = "\n\n".join(f"{role}: {text}" for role, text in messages)
    return f"The conversation so far, oldest message first:\n\n{lines}\n\nThe new message to answer:\n\n{question}"


async def expect_error(request: Any, status: int, code: str | None, param: str | None = None) -> None:
    """Assert that a request of the official client fails with this error."""
    with pytest.raises(openai.APIStatusError) as error:
        await request
    assert (error.value.status_code, error.value.code) == (status, code)
    if param is not None:
        assert error.value.param == param


async def get(http: httpx2.AsyncClient, proxy: ProxyServer, path: str, **more: Any) -> Json:
    reply = await http.get(f"{proxy.url}{path}", **more)
    assert reply.status_code == 200, reply.text
    body: Json = reply.json()
    return body


async def not_found(reply: httpx2.Response, code: str) -> None:
    assert reply.status_code == 404
    assert error_of(reply)["code"] == code


async def stream_of(http: httpx2.AsyncClient, proxy: ProxyServer, text: Any, model: str, **more: Any) -> list[Json]:
    """Create a streamed response and return its events, after checking its frames."""
    body = {"model": model, "input": text, "stream": True, **more}
    reply = await http.post(f"{proxy.url}/responses", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return events_of(reply.content)


def read_files(directory: Path) -> bytes:
    """Return the content of all files in a directory."""
    return b"".join(path.read_bytes() for path in directory.iterdir())


def text_of(events: list[Json]) -> str:
    """Return the joined deltas of a stream."""
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
