"""The hot path and the application give the same answers; ``conftest.SERVED_TWICE`` runs whole modules with each."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_dify_proxy.settings import Settings
from tests.api.raw_client import until
from tests.api.servers import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    message_frame,
    raw_dify,
    scripted,
)
from tests.api.slots import MEMORY
from tests.deltas import join_chunks
from tests.limits import PATIENCE
from tests.recordings.archive import HANDMADE, VERSIONS, Recording, streams

VOLATILE = frozenset({"date", "x-request-id", "openai-processing-ms", "content-length"})
"""Headers that differ between any two answers."""


@dataclass
class Proxies:
    """A proxy with the hot path and one without, and the listening socket of their Dify."""

    hot: ProxyServer
    app: ProxyServer
    listener: socket.socket


def chats() -> st.SearchStrategy[Recording]:
    """Return a strategy of recorded chats. They are read when the test runs: the plugin counts what tests read."""
    return st.sampled_from(
        [
            recording
            for folder in (*VERSIONS, HANDMADE)
            for recording in streams(folder)
            if recording.mode in ("chat", "agent-chat") and len(recording.body) < 100_000
        ]
    )


@pytest.fixture(scope="module")
def proxies() -> Iterator[Proxies]:
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        apps = {"raw": app_settings("raw", "app-raw", url, mode="chat")}
        with_and_without = [
            stack.enter_context(
                ProxyServer(
                    Settings(dify_api_url=url, apps=apps, dify_max_concurrent="off", state_url=MEMORY),
                    hot_path=hot_path,
                )
            )
            for hot_path in (True, False)
        ]
        yield Proxies(with_and_without[0], with_and_without[1], listener)


def pieces_of(body: bytes, cuts: Sequence[float]) -> list[bytes]:
    """Return the body as chunks that end at these parts of it."""
    ends = sorted({int(cut * len(body)) for cut in cuts} | {len(body)})
    starts = [0, *ends[:-1]]
    return [chunk(body[start:end]) for start, end in zip(starts, ends, strict=True) if end > start]


async def ask(proxy: ProxyServer, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    """Return the status, the lasting headers, and the answer without what differs between any two."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        response = await client.post(f"{proxy.url}/chat/completions", json=body)
    headers = {name: value for name, value in response.headers.items() if name not in VOLATILE}
    text = re.sub(r'"id":"chatcmpl-[0-9a-f]+"|"created":\d+', "", response.text).replace(",,", ",").replace("{,", "{")
    if not headers.get("content-type", "").startswith("text/event-stream"):
        return response.status_code, headers, text
    frames = [frame.removeprefix("data: ") for frame in text.split("\n\n") if frame]
    chunks = [frame if frame == "[DONE]" else json.loads(frame) for frame in frames]
    return response.status_code, headers, joined(chunks)


def joined(chunks: Sequence[Any]) -> list[Any]:
    """Join the adjacent texts of a stream: which of them share a chunk depends on the network."""
    compact: list[Any] = []
    for each in chunks:
        delta = each["choices"][0]["delta"] if isinstance(each, dict) and each.get("choices") else None
        compact.append(delta if delta and set(delta) <= {"content", "reasoning_content"} else {"chunk": each})
    return join_chunks(compact)


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(
    recording=st.deferred(chats),
    cuts=st.lists(st.floats(0, 1), max_size=8),
    streamed=st.booleans(),
    complete=st.booleans(),
)
def test_both_answer_alike(
    proxies: Proxies, recording: Recording, cuts: list[float], streamed: bool, complete: bool
) -> None:
    pieces = pieces_of(recording.body, cuts)
    answer = [SSE_HEAD, *pieces, LAST_CHUNK] if complete else [SSE_HEAD, *pieces[:-1]]
    body = {"model": "raw", "messages": [{"role": "user", "content": recording.name}], "stream": streamed}

    async def answers() -> list[Any]:
        async with raw_dify(scripted(answer), at=proxies.listener):
            return [await ask(proxy, body) for proxy in (proxies.hot, proxies.app)]

    of_hot_path, of_application = asyncio.run(answers())
    assert of_hot_path == of_application


async def test_common_requests_are_served_without_a_task(proxies: Proxies) -> None:
    answering = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await answering.wait()
        writer.write(chunk(END) + LAST_CHUNK)

    common = {"model": "raw", "messages": [{"role": "user", "content": "hi"}]}
    rare = common | {"tools": [{"type": "function", "function": {"name": "f"}}]}
    async with raw_dify(answer, at=proxies.listener) as dify:
        warm_up = asyncio.create_task(ask(proxies.hot, common))
        await until(lambda: len(dify.turns) == 1)
        bodies = (common, common | {"stream": True}, rare)
        asked = [asyncio.create_task(ask(proxies.hot, body)) for body in bodies]
        asked.append(asyncio.create_task(ask(proxies.app, common)))
        await until(lambda: len(dify.turns) == 5)
        assert proxies.hot.served_directly >= 2
        assert proxies.app.served_directly == 0
        answering.set()
        assert [status for status, _, _ in await asyncio.gather(warm_up, *asked)] == [200] * 5
        await until(lambda: proxies.hot.served_directly == 0)


async def test_a_grace_that_ends_cancels_requests_on_the_hot_path() -> None:
    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame("one")))
        await writer.drain()
        await asyncio.Event().wait()

    async with raw_dify(answer) as dify:
        apps = {"raw": app_settings("raw", "app-raw", dify.url, mode="chat")}
        configured = Settings(dify_api_url=dify.url, apps=apps, shutdown_grace=0.2, state_url=MEMORY)
        body = {"model": "raw", "messages": [{"role": "user", "content": "hi"}]}
        with ProxyServer(configured) as proxy:
            first = asyncio.create_task(ask(proxy, body))  # learns the profile
            await until(lambda: len(dify.turns) == 1)
            second = asyncio.create_task(ask(proxy, body | {"stream": True}))
            await until(lambda: proxy.served_directly >= 1)
            proxy.begin_stop()
            answers = await asyncio.gather(first, second)
    assert answers[0][0] == 503
    assert '"code":"shutting_down"' in answers[0][2] or "shutting down" in answers[0][2]
    assert "shutting down" in json.dumps(answers[1][2])


async def test_both_answers_depend_on_the_origin_if_other_origins_may_read_them() -> None:
    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(END) + LAST_CHUNK)

    body = {"model": "raw", "messages": [{"role": "user", "content": "hi"}]}
    async with raw_dify(answer) as dify:
        apps = {"raw": app_settings("raw", "app-raw", dify.url, mode="chat")}
        origins = ("https://chat.example.com",)
        configured = Settings(dify_api_url=dify.url, apps=apps, cors_origins=origins, state_url=MEMORY)
        with ProxyServer(configured) as proxy:
            answers = [await ask(proxy, body) for _ in range(2)]  # the first learns the profile
    assert [headers["vary"] for _, headers, _ in answers] == ["Origin", "Origin"]
