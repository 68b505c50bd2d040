"""Send chat requests to the proxy, and read its answers and the demo's log."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from openai import AsyncOpenAI

from openai_dify_proxy_demo import DemoLog
from openai_dify_proxy_demo.log import LoggedRequest

MODES = ("demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-completion", "demo-workflow", "demo-agent")
CONVERSING = ("demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-agent")
MODELS = [f"{name}@{version}" for version in ("1.11", "1.13", "1.16") for name in MODES if name != "demo-agent"] + [
    "demo-agent@1.16"
]
"""All app modes in all dialects of the demo. The New Agent exists since Dify 1.16."""

Json = dict[str, Any]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def ask(client: AsyncOpenAI, model: str, text: str, **more: Any) -> str:
    """Return the text of an answer that is not streamed."""
    completion = await client.chat.completions.create(model=model, messages=user(text), **more)
    assert completion.choices[0].finish_reason == "stop"
    return completion.choices[0].message.content or ""


async def ask_streaming(client: AsyncOpenAI, model: str, text: str, **more: Any) -> str:
    """Return the joined deltas of a streamed answer."""
    stream = await client.chat.completions.create(model=model, messages=user(text), stream=True, **more)
    parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    return "".join(parts)


def chat_body(text: str, model: str = "demo-chat", **more: Any) -> Json:
    return {"model": model, "messages": user(text), **more}


def turns(log: DemoLog) -> list[LoggedRequest]:
    """Return the requests for a turn, including rejected ones."""
    return [request for request in _at_turn_routes(log) if "inputs" in request.body]


def probes(log: DemoLog) -> list[LoggedRequest]:
    """Return the requests to the same routes that only detect the app mode: they have no inputs."""
    return [request for request in _at_turn_routes(log) if "inputs" not in request.body]


def _at_turn_routes(log: DemoLog) -> list[LoggedRequest]:
    paths = ("/chat-messages", "/completion-messages", "/workflows/run")
    return [request for request in log.requests if request.path.endswith(paths)]


def the_turn(log: DemoLog) -> LoggedRequest:
    (request,) = turns(log)
    return request


def error_of(response: httpx2.Response) -> Json:
    """Return the error of a response, whose envelope must have exactly OpenAI's four keys."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    return check_error(body["error"])


def check_error(error: Json) -> Json:
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert isinstance(error["type"], str)
    return error


def frames_of(body: str) -> list[str]:
    """Return the payloads of a stream, which may hold only ``data: …`` frames and comments."""
    assert body.endswith("\n\n")
    assert "\r" not in body
    blocks = body[:-2].split("\n\n")
    assert all(block.startswith(("data: ", ": ")) and "\n" not in block for block in blocks), blocks
    return [block.removeprefix("data: ") for block in blocks]


def chunks_of(body: str) -> list[Json]:
    """Return the chunks of a stream, which must end with ``[DONE]``."""
    frames = frames_of(body)
    assert frames[-1] == "[DONE]"
    return [json.loads(frame) for frame in frames[:-1] if not frame.startswith(":")]


def failure_of(body: str) -> Json:
    """Return the error of a failed stream, which must have no finish reason and no ``[DONE]``."""
    frames = [json.loads(frame) for frame in frames_of(body) if not frame.startswith(":")]
    assert list(frames[-1]) == ["error"]
    assert not any(choice["finish_reason"] for frame in frames[:-1] for choice in frame["choices"])
    return check_error(frames[-1]["error"])
