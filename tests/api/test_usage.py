"""What callers have used: every kind of turn, with the prices of the demo Dify to the last digit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.audio_requests import wav
from tests.api.chat_requests import Json, ask, ask_streaming, chat_body
from tests.api.conftest import Serve
from tests.api.servers import Clock, ProxyServer, demo_apps
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program

KEY, OTHER = "sk-client-one-0123456789", "sk-client-two-0123456789"
MEMORY = SecretStr("memory://")


@pytest.fixture
def proxy(serve: Serve) -> ProxyServer:
    """A proxy with two client keys and a state of its own."""
    return serve(api_keys=(SecretStr(KEY), SecretStr(OTHER)), state_url=MEMORY, dify_max_concurrent="off")


async def usage(http: httpx2.AsyncClient, proxy: ProxyServer, key: str = KEY, **query: str) -> Json:
    reply = await http.get(f"{proxy.url}/usage", params=query, headers={"Authorization": f"Bearer {key}"})
    assert reply.status_code == 200, reply.text
    body: Json = reply.json()
    return body


async def used(http: httpx2.AsyncClient, proxy: ProxyServer, outcome: str, *, count: int = 1) -> Json:
    """Return the total once so many turns with the outcome are booked: some end after their client has left."""
    async with asyncio.timeout(PATIENCE):
        while True:
            total: Json = (await usage(http, proxy))["total"]
            if total["outcomes"].get(outcome, 0) >= count:
                return total


async def prices_in_dify(http: httpx2.AsyncClient, demo: DemoServer, log: DemoLog) -> Decimal:
    """Return the sum of the prices of all messages of this test, as the demo's own list of messages has them."""
    total = Decimal(0)
    for conversation, user, app in {(run.conversation_id, run.user, run.app) for run in log.runs}:
        query = {"conversation_id": conversation, "user": user, "limit": "100"}
        reply = await http.get(f"{demo.url}/messages", params=query, headers={"Authorization": f"Bearer app-{app}"})
        total += sum(Decimal(row["total_price"]) for row in reply.json()["data"])
    return total


async def test_the_prices_are_difys_own_to_the_last_digit(
    proxy: ProxyServer, http: httpx2.AsyncClient, demo: DemoServer, log: DemoLog
) -> None:
    app = next(name for name in demo_apps(demo.url) if name == "demo-chat@1.16")
    async with proxy.client(KEY) as client:
        for number in range(5):
            await ask(client, app, f"Question {number} " + "x" * 37 * number)
            await ask_streaming(client, app, f"Streamed {number} " + "y" * 91 * number)
    total = (await usage(http, proxy))["total"]
    assert total["turns"] == 10
    assert total["outcomes"] == {"stop": 10}
    assert Decimal(total["price"]["USD"]) == await prices_in_dify(http, demo, log)
    assert (await usage(http, proxy, OTHER))["total"]["turns"] == 0


async def test_usage_by_app_and_day(serve: Serve, http: httpx2.AsyncClient) -> None:
    clock = Clock(ahead=0)
    proxy = serve(api_keys=(SecretStr(KEY),), state_url=MEMORY, clock=clock, dify_max_concurrent="off")
    days = []
    async with proxy.client(KEY) as client:
        for model in ("demo-chat", "demo-workflow"):
            await ask(client, model, "Hello")
            days.append((await usage(http, proxy))["to"])
            clock.ahead += 86_400
    rows = (await usage(http, proxy, by="app,day"))["data"]
    assert [(row["day"], row["app"], row["turns"]) for row in rows] == [
        (days[0], "demo-chat", 1),
        (days[1], "demo-workflow", 1),
    ]
    one_day = await usage(http, proxy, by="day", **{"from": days[0], "to": days[0]})
    assert [row["day"] for row in one_day["data"]] == [days[0]]
    (own,) = (await usage(http, proxy, by="key"))["data"]
    assert own["turns"] == 2
    assert KEY not in str(own)


async def test_every_way_in_which_a_turn_ends(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    auth = {"Authorization": f"Bearer {KEY}"}
    for stream in (False, True):
        await http.post(f"{proxy.url}/chat/completions", json=chat_body("CUT", stream=stream), headers=auth)
    await used(http, proxy, "turn_failed", count=2)
    request = http.stream(
        "POST", f"{proxy.url}/chat/completions", json=chat_body("SLOW:1000x100", stream=True), headers=auth
    )
    async with request as reply:
        await anext(reply.aiter_bytes())
    await used(http, proxy, "client_gone")
    created = await http.post(
        f"{proxy.url}/responses", json={"model": "demo-chat", "input": "Hi", "background": True}, headers=auth
    )
    assert created.json()["status"] == "queued"
    total = await used(http, proxy, "stop")
    assert total["turns"] == 4


async def test_a_turn_that_dify_rejects_costs_nothing(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    auth = {"Authorization": f"Bearer {KEY}"}
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("ERROR:limit"), headers=auth)
    assert reply.status_code == 429
    total = (await usage(http, proxy))["total"]
    assert (total["outcomes"], total["total_tokens"], total["price"]) == ({"turn_failed": 1}, 0, {})


async def test_the_runs_that_repair_an_answer_are_priced_too(
    proxy: ProxyServer, http: httpx2.AsyncClient, demo: DemoServer, log: DemoLog
) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    body = chat_body("CALL:none weather(city=Rome)", "demo-chat@1.16", tools=[tool], tool_choice="required")
    reply = await http.post(f"{proxy.url}/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"})
    assert reply.status_code == 200, reply.text
    total = (await usage(http, proxy))["total"]
    assert total["turns"] == 1
    assert len(log.runs) == 2
    assert Decimal(total["price"]["USD"]) == await prices_in_dify(http, demo, log)


@pytest.mark.parametrize("model", ["demo-advanced-chat@1.14", "demo-advanced-chat@1.16"])
async def test_a_run_that_pauses_is_priced_once(
    proxy: ProxyServer, http: httpx2.AsyncClient, demo: DemoServer, log: DemoLog, model: str
) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    messages: list[Any] = [{"role": "user", "content": "SAY<<Draft.>> PAUSE:2"}]
    for _ in range(2):
        reply = await http.post(
            f"{proxy.url}/chat/completions",
            json={"model": model, "messages": messages, "tools": tools},
            headers={"Authorization": f"Bearer {KEY}"},
        )
        message = reply.json()["choices"][0]["message"]
        (call,) = message["tool_calls"]
        messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": "yes"}]
    async with proxy.client(KEY) as client:
        stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "stop"
    total = (await usage(http, proxy))["total"]
    assert total["outcomes"] == {"tool_calls": 2, "stop": 1}
    assert len(log.runs) == 1
    assert total["total_tokens"] > 0
    assert Decimal(total["price"]["USD"]) == await prices_in_dify(http, demo, log)


async def test_audio_is_a_turn(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    auth = {"Authorization": f"Bearer {KEY}"}
    files = {"file": ("a.wav", wav(), "audio/wav")}
    data = {"model": "demo-chat"}
    heard = await http.post(f"{proxy.url}/audio/transcriptions", data=data, files=files, headers=auth)
    assert heard.status_code == 200, heard.text
    spoken = {"model": "demo-chat", "input": "Hello", "voice": "alloy"}
    assert (await http.post(f"{proxy.url}/audio/speech", json=spoken, headers=auth)).status_code == 200
    assert (await usage(http, proxy))["total"]["outcomes"] == {"ok": 2}


async def test_an_image_request_is_a_turn_with_its_pictures(
    serve_images: Serve, http: httpx2.AsyncClient, predictions: ReplicateLog
) -> None:
    proxy = serve_images(api_keys=(SecretStr(KEY),), state_url=MEMORY)
    auth = {"Authorization": f"Bearer {KEY}"}
    body: dict[str, Any] = {"prompt": "A house", "n": 2}
    for stream in (False, True):
        reply = await http.post(f"{proxy.url}/images/generations", json={**body, "stream": stream}, headers=auth)
        assert reply.status_code == 200, reply.text
    (row,) = (await usage(http, proxy))["data"]
    assert (row["app"], row["turns"], row["pictures"]) == ("stability-ai/sdxl", 2, 4)


async def test_requests_with_dify_keys_have_one_account(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    dify_key = {"Authorization": "Bearer app-demo-chat"}
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("Hello"), headers=dify_key)
    assert reply.status_code == 200
    assert (await http.get(f"{proxy.url}/usage", headers=dify_key)).status_code == 401
    assert (await usage(http, proxy))["total"]["turns"] == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-02-30"}, "to"),
        ({"to": "0001-01-01"}, "to"),
        ({"from": "2026-02-02", "to": "2026-02-01"}, "from"),
        ({"from": "2024-01-01", "to": "2026-01-01"}, "from"),
        ({"by": "week"}, "by"),
        ({"by": ""}, "by"),
        ({"by": "app,"}, "by"),
    ],
)
async def test_wrong_parameters(
    proxy: ProxyServer, http: httpx2.AsyncClient, query: dict[str, str], param: str
) -> None:
    reply = await http.get(f"{proxy.url}/usage", params=query, headers={"Authorization": f"Bearer {KEY}"})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


async def test_usage_needs_a_key(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    assert (await http.get(f"{proxy.url}/usage")).status_code == 401


@pytest.fixture(params=["sqlite", "valkey"])
def replicas(request: pytest.FixtureRequest, demo: DemoServer, tmp_path: Path) -> Iterator[list[ProxyServer]]:
    """Two proxies that share a state."""
    with ExitStack() as stack:
        if request.param == "valkey":
            url = stack.enter_context(ValkeyServer(valkey_program(), tmp_path / "valkey").running()).url()
        else:
            url = f"sqlite:///{tmp_path}/state.db"
        settings = Settings(
            dify_api_url=demo.url,
            apps=demo_apps(demo.url),
            api_keys=(SecretStr(KEY),),
            state_url=SecretStr(url),
            dify_max_concurrent="off",
        )
        yield [stack.enter_context(ProxyServer(settings)) for _ in range(2)]


async def test_two_replicas_add_up(replicas: list[ProxyServer], http: httpx2.AsyncClient) -> None:
    for proxy in replicas:
        async with proxy.client(KEY) as client:
            await asyncio.gather(*(ask(client, "demo-chat", f"Question {number}") for number in range(5)))
    for proxy in replicas:  # each writes its own when it is asked
        await usage(http, proxy)
    totals = [(await usage(http, proxy))["total"] for proxy in replicas]
    assert totals[0] == totals[1]
    assert totals[0]["turns"] == 10
