"""Limits of client keys on real sockets: 429s, their headers, and what a limit holds back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.settings import ClientKeySettings, SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.audio_requests import wav
from tests.api.chat_requests import Json, ask, ask_streaming, chat_body, turns
from tests.api.conftest import Serve
from tests.api.servers import Clock, ProxyServer, demo_apps
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program

KEY = "sk-client-one-0123456789"
FREE = "sk-client-two-0123456789"
AUTH = {"Authorization": f"Bearer {KEY}"}
MEMORY = SecretStr("memory://")
SLOW = "SLOW:1000x100"

Limited = Callable[..., ProxyServer]


def keys(**limits: Any) -> dict[str, ClientKeySettings]:
    """Return a limited key and a free one."""
    return {
        "limited": ClientKeySettings(name="limited", key=SecretStr(KEY), **limits),
        "free": ClientKeySettings(name="free", key=SecretStr(FREE)),
    }


@pytest.fixture
def limited(serve: Serve) -> Limited:
    """Start a proxy with a limited key: ``limited(requests_per_minute=1)``. Other settings go into ``also``."""

    def start(also: Json | None = None, **limits: Any) -> ProxyServer:
        settings = {"state_url": MEMORY, "dify_max_concurrent": "off", **(also or {})}
        return serve(keys=keys(**limits), **settings)

    return start


async def chat(http: httpx2.AsyncClient, proxy: ProxyServer, text: str = "Hello", key: str = KEY) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return await http.post(f"{proxy.url}/chat/completions", json=chat_body(text), headers=headers)


@asynccontextmanager
async def streaming(http: httpx2.AsyncClient, proxy: ProxyServer, key: str = KEY) -> AsyncIterator[None]:
    """Hold a turn open within the block."""
    body, headers = chat_body(SLOW, stream=True), {"Authorization": f"Bearer {key}"}
    async with http.stream("POST", f"{proxy.url}/chat/completions", json=body, headers=headers) as reply:
        assert reply.status_code == 200
        chunks = reply.aiter_bytes()  # the stream is closed with its iterator
        await anext(chunks)
        yield


async def test_requests_per_minute(limited: Limited, http: httpx2.AsyncClient, log: DemoLog) -> None:
    proxy = limited(requests_per_minute=1)
    replies = [await chat(http, proxy) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 429]
    assert [reply.headers["x-ratelimit-limit-requests"] for reply in replies] == ["1", "1"]
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["0", "0"]
    assert all("x-ratelimit-limit-tokens" not in reply.headers for reply in replies)
    error = replies[1].json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert error["message"].startswith("This API key may use 1 requests per minute. Send the request again in ")
    assert 1 <= int(replies[1].headers["retry-after"]) <= 60
    assert "x-should-retry" not in replies[1].headers
    assert len(turns(log)) == 1
    free = await chat(http, proxy, key=FREE)
    assert free.status_code == 200
    assert not [name for name in free.headers if name.startswith("x-ratelimit")]


async def test_invalid_requests_and_other_routes_do_not_count(limited: Limited, http: httpx2.AsyncClient) -> None:
    proxy = limited(requests_per_minute=1)
    invalid = await http.post(f"{proxy.url}/chat/completions", json={"model": "demo-chat"}, headers=AUTH)
    assert invalid.status_code == 400
    for path in ("models", "files", "usage"):
        assert (await http.get(f"{proxy.url}/{path}", headers=AUTH)).status_code == 200
    assert [(await chat(http, proxy)).status_code for _ in range(2)] == [200, 429]


async def test_the_official_client_raises_the_right_errors(limited: Limited) -> None:
    proxy = limited(requests_per_minute=1)
    async with proxy.client(KEY, max_retries=0) as client:
        await ask(client, "demo-chat", "Hello")
        with pytest.raises(openai.RateLimitError) as refused:
            await ask_streaming(client, "demo-chat", "Hello")
    assert refused.value.code == "rate_limit_exceeded"


async def test_tokens_per_minute(limited: Limited, http: httpx2.AsyncClient, log: DemoLog) -> None:
    proxy = limited(tokens_per_minute=40)
    first = await chat(http, proxy, "x" * 2000)
    assert first.headers["x-ratelimit-remaining-tokens"] == "40"
    assert first.json()["usage"]["total_tokens"] > 80
    second = await chat(http, proxy)
    assert (second.status_code, second.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert second.headers["x-ratelimit-remaining-tokens"] == "0"
    assert int(second.headers["retry-after"]) > 60
    assert second.headers["x-should-retry"] == "false"  # some SDKs would sleep for all that time
    assert len(turns(log)) == 1


async def test_a_daily_budget_of_turns(limited: Limited, http: httpx2.AsyncClient, log: DemoLog) -> None:
    clock = Clock()
    proxy = limited({"clock": clock}, daily_turns=2)
    replies = [await chat(http, proxy) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    error = replies[2].json()["error"]
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    assert "The daily budget of this API key is used up: 2 of 2 turns." in error["message"]
    assert replies[2].headers["x-should-retry"] == "false"
    now = datetime.now(UTC)
    left = 86_400 - (now.hour * 3600 + now.minute * 60 + now.second)
    assert abs(int(replies[2].headers["retry-after"]) - left) <= PATIENCE
    clock.ahead = int(replies[2].headers["retry-after"])
    assert (await chat(http, proxy)).status_code == 200
    assert len(turns(log)) == 3


async def test_a_budget_in_difys_price_is_exact(limited: Limited, http: httpx2.AsyncClient) -> None:
    """A budget of three equal turns ends after the third, one of a tenth of a millionth more after the fourth."""
    probe = (await chat(http, limited())).json()["dify"]["usage"]["total_price"]
    for more, allowed in ((Decimal(0), 3), (Decimal("0.0000001"), 4)):
        proxy = limited(daily_price={"USD": str(3 * Decimal(probe) + more)})
        codes = [(await chat(http, proxy)).status_code for _ in range(5)]
        assert codes == [200] * allowed + [429] * (5 - allowed)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_overshoot_is_at_most_the_turns_in_flight(
    limited: Limited, http: httpx2.AsyncClient, log: DemoLog, stream: bool
) -> None:
    proxy = limited(daily_turns=20)
    parallel = 50
    body = chat_body("Hello", stream=stream)

    async def client() -> int:
        admitted = 0
        while True:
            reply = await http.post(f"{proxy.url}/chat/completions", json=body, headers=AUTH)
            if reply.status_code == 429:
                return admitted
            assert reply.status_code == 200
            admitted += 1

    admitted = sum(await asyncio.gather(*(client() for _ in range(parallel))))
    assert 20 <= admitted < 20 + parallel
    assert len(turns(log)) == admitted
    report = (await http.get(f"{proxy.url}/usage", headers=AUTH)).json()
    assert report["total"]["turns"] == admitted


async def test_failed_turns_and_clients_that_leave_count(limited: Limited, http: httpx2.AsyncClient) -> None:
    proxy = limited(daily_turns=2)
    assert (await chat(http, proxy, "CUT")).status_code == 502
    async with streaming(http, proxy):
        pass
    async with asyncio.timeout(PATIENCE):
        while (await http.get(f"{proxy.url}/usage", headers=AUTH)).json()["total"]["turns"] < 2:
            pass
    assert (await chat(http, proxy)).json()["error"]["code"] == "insufficient_quota"


async def test_what_the_limit_of_a_key_holds_back_has_no_slot(
    limited: Limited, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    proxy = limited({"dify_max_concurrent": 2}, concurrent_turns=1)
    async with streaming(http, proxy):
        held_back = asyncio.create_task(chat(http, proxy))
        async with asyncio.timeout(PATIENCE):
            while (await http.get(f"{proxy.origin}/ready")).json()["dify"][0]["in_use"] < 1:
                pass
        assert (await chat(http, proxy, key=FREE)).status_code == 200  # the second slot is free
        (status,) = (await http.get(f"{proxy.origin}/ready")).json()["dify"]
        assert (status["in_use"], status["queued"]) == (1, 0)
        assert not held_back.done()
        assert len(turns(log)) == 2
    assert (await held_back).status_code == 200


async def test_a_full_line_of_a_key_gets_a_429(limited: Limited, http: httpx2.AsyncClient) -> None:
    proxy = limited({"max_queued_turns": 1}, concurrent_turns=1)
    with capture_logs() as logs:
        async with streaming(http, proxy):
            replies = [asyncio.create_task(chat(http, proxy)) for _ in range(2)]
            done, waiting = await asyncio.wait(replies, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
            (refused,) = (task.result() for task in done)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert "runs as many turns at once as it may" in refused.json()["error"]["message"]
            assert int(refused.headers["retry-after"]) >= 1
        assert (await waiting.pop()).status_code == 200
    assert [line["outcome"] for line in logs if line.get("status") == 429] == ["rejected: rate_limit_exceeded"]


async def test_every_route_that_generates_something_counts(
    serve_images: Serve, http: httpx2.AsyncClient, predictions: ReplicateLog
) -> None:
    audio = {"file": ("a.wav", wav(), "audio/wav")}
    requests: list[tuple[str, Json]] = [
        ("chat/completions", {"json": chat_body("Hello")}),
        ("completions", {"json": {"model": "demo-chat", "prompt": "Hello"}}),
        ("responses", {"json": {"model": "demo-chat", "input": "Hello"}}),
        ("responses", {"json": {"model": "demo-chat", "input": "Hello", "background": True}}),
        ("images/generations", {"json": {"prompt": "A house"}}),
        ("audio/transcriptions", {"data": {"model": "demo-chat"}, "files": audio}),
        ("audio/speech", {"json": {"model": "demo-chat", "input": "Hello", "voice": "alloy"}}),
    ]
    limits = keys(requests_per_minute=1000, daily_turns=len(requests))
    proxy = serve_images(keys=limits, state_url=MEMORY)
    for path, options in requests:
        reply = await http.post(f"{proxy.url}/{path}", headers=AUTH, **options)
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-ratelimit-limit-requests"] == "1000"
    async with asyncio.timeout(PATIENCE):  # one of them runs in the background
        while (await http.get(f"{proxy.url}/usage", headers=AUTH)).json()["total"]["turns"] < len(requests):
            pass
    for path, options in requests:
        reply = await http.post(f"{proxy.url}/{path}", headers=AUTH, **options)
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "insufficient_quota"), path


async def test_an_admin_sees_the_usage_of_all_keys(serve: Serve, http: httpx2.AsyncClient) -> None:
    admin = ClientKeySettings(name="operator", key=SecretStr("sk-admin-0123456789abcdef"), admin=True)
    proxy = serve(keys={**keys(), "operator": admin}, state_url=MEMORY, dify_max_concurrent="off")
    for key in (KEY, FREE):
        await chat(http, proxy, key=key)
    headers = {"Authorization": "Bearer sk-admin-0123456789abcdef"}
    report = (await http.get(f"{proxy.url}/usage", headers=headers)).json()
    assert report["by"] == ["key"]
    assert [(row["key"], row["turns"]) for row in report["data"]] == [("free", 1), ("limited", 1)]
    own = (await http.get(f"{proxy.url}/usage", headers=AUTH)).json()
    assert (own["by"], own["total"]["turns"]) == (["app"], 1)


@pytest.fixture(params=["sqlite", "valkey"])
def replicas(
    request: pytest.FixtureRequest, demo: DemoServer, tmp_path: Path
) -> Iterator[Callable[..., list[ProxyServer]]]:
    """Start two proxies that share a state, with a limited key."""
    with ExitStack() as stack:
        if request.param == "valkey":
            url = stack.enter_context(ValkeyServer(valkey_program(), tmp_path / "valkey").running()).url()
        else:
            url = f"sqlite:///{tmp_path}/state.db"

        def start(**limits: Any) -> list[ProxyServer]:
            settings = Settings(
                dify_api_url=demo.url,
                apps=demo_apps(demo.url),
                keys=keys(**limits),
                state_url=SecretStr(url),
                dify_max_concurrent="off",
            )
            return [stack.enter_context(ProxyServer(settings)) for _ in range(2)]

        yield start


async def test_replicas_share_limits_and_budgets(
    replicas: Callable[..., list[ProxyServer]], http: httpx2.AsyncClient
) -> None:
    proxies = replicas(daily_turns=3, requests_per_minute=100)
    replies = [await chat(http, proxies[number % 2]) for number in range(5)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
    assert {reply.headers["x-ratelimit-limit-requests"] for reply in replies} == {"100"}


async def test_a_refused_stream_has_the_status_429_whatever_the_grace(
    serve: Serve, tmp_path: Path, http: httpx2.AsyncClient
) -> None:
    """Another server counts the requests, and its verdict comes before the status line that needs no event."""
    with ValkeyServer(valkey_program(), tmp_path / "valkey").running() as server:
        state = SecretStr(server.url())
        proxy = serve(keys=keys(requests_per_minute=2), state_url=state, first_event_grace=0)
        answers = []
        for _ in range(3):
            body = chat_body("Hello", stream=True)
            answers.append(await http.post(f"{proxy.url}/chat/completions", json=body, headers=AUTH))
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
