"""A Dify key that Dify has not accepted: it costs one small call to Dify, and delays no other caller."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from openai_dify_proxy.errors import AuthenticationFailed, ServerBusy, UpstreamTimeout
from openai_dify_proxy.settings import LimitSettings
from openai_dify_proxy.turns.new_keys import MAX_REJECTED, NewKeys
from openai_dify_proxy.turns.profiles import FRESH_SECONDS, KNOWN_SECONDS, Profiles
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import chat_body, error_of
from tests.api.raw_client import until
from tests.api.servers import ProxyServer, http_answer, read_request, serving
from tests.limits import PATIENCE

Serve = Callable[..., ProxyServer]
JUNK = {"Authorization": "Bearer app-made-up"}


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses", "conversations"])
@pytest.mark.parametrize("framing", ["Content-Length: 60000000", "Transfer-Encoding: chunked"])
def test_body_with_a_rejected_key_is_not_read(proxy: ProxyServer, log: DemoLog, path: str, framing: str) -> None:
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
    with client, client.makefile("rb") as answer:
        head = f"POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer app-bad-{path}-{len(framing)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n{framing}\r\n\r\n".encode())
        assert b" 401 " in answer.readline()
    assert [request.path for request in log.requests] == ["/v1/info"]


async def test_repeated_junk_key_is_checked_once(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    for method, path in (("POST", "chat/completions"), ("GET", "models"), ("POST", "conversations")) * 3:
        body = chat_body("hi") if method == "POST" else None
        reply = await http.request(method, f"{proxy.url}/{path}", json=body, headers=JUNK)
        assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
    assert len(log.requests) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "responses/resp_1"),
        ("DELETE", "responses/resp_1"),
        ("POST", "responses/resp_1/cancel"),
        ("GET", "responses/resp_1/input_items"),
        ("POST", "conversations"),
        ("GET", "conversations/conv_1"),
        ("POST", "conversations/conv_1"),
        ("DELETE", "conversations/conv_1"),
        ("GET", "conversations/conv_1/items"),
        ("POST", "responses"),
        ("POST", "chat/completions"),
    ],
)
async def test_junk_key_writes_nothing_to_the_state(
    serve: Serve, tmp_path: Path, http: httpx2.AsyncClient, method: str, path: str
) -> None:
    state = tmp_path / "state.db"
    proxy = serve(state_url=f"sqlite:///{state}")
    body = {"model": "x", "input": "hi", "background": True, "messages": [], "metadata": {}}
    reply = await http.request(method, f"{proxy.url}/{path}", headers=JUNK, json=body if method == "POST" else None)
    assert reply.status_code in (401, 404)
    keys = set()
    if state.exists():
        with closing(sqlite3.connect(state)) as database:
            keys = {key for (key,) in database.execute("SELECT key FROM entries")}
    assert keys <= {"secret"}  # which does not depend on the request


async def test_long_key_is_rejected_without_dify(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    headers = {"Authorization": "Bearer app-" + "x" * 10_000}
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi"), headers=headers)
    assert reply.status_code == 401
    assert not log.requests


@dataclass
class Gate:
    """A Dify that accepts keys with ``good`` in them. Its answers to other keys wait for ``opened``."""

    calls: Counter[str] = field(default_factory=Counter)
    checked: list[str] = field(default_factory=list)
    """The keys in the order of their first calls."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    rejecting: bool = False
    now: float = 1000.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader, 1)) is not None:
            key = request.headers["authorization"].removeprefix("Bearer ")
            self.calls[key] += 1
            if self.calls[key] == 1:
                self.checked.append(key)
            if "good" in key and not self.rejecting:
                form = {"user_input_form": [], "name": "x", "description": "", "tags": [], "mode": "chat"}
                writer.write(http_answer(200, json.dumps(form).encode()))
                continue
            await self.opened.wait()
            error = {"code": "unauthorized", "message": "Access token is invalid", "status": 401}
            writer.write(http_answer(401, json.dumps(error).encode()))


class Setup:
    def __init__(self, gate: Gate, profiles: Profiles, url: str) -> None:
        self.gate = gate
        self.profiles = profiles
        self._url = url

    def app(self, key: str, *, own_key: bool = False) -> DifyApp:
        return DifyApp(self._url, key, own_key)

    async def get(self, key: str, client: str = "", *, own_key: bool = False) -> str | None:
        """Return the app's mode, or the code of the error."""
        try:
            return (await self.profiles.get(self.app(key, own_key=own_key), None, client)).mode
        except (AuthenticationFailed, ServerBusy) as error:
            return error.code


@asynccontextmanager
async def limited(limits: LimitSettings) -> AsyncIterator[Setup]:
    gate = Gate()
    async with serving(gate.serve) as port:
        http = HttpClient(connect_timeout=PATIENCE)
        yield Setup(gate, Profiles(DifyClient(http), limits, lambda: gate.now), f"http://127.0.0.1:{port}/v1")
        gate.opened.set()
        await http.close()


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with limited(LimitSettings()) as started:
        yield started


async def test_junk_keys_do_not_hold_up_known_ones(setup: Setup) -> None:
    assert await setup.get("app-good-1") == "chat"
    junk = [asyncio.create_task(setup.get(f"app-junk-{number}")) for number in range(50)]
    await until(lambda: setup.gate.calls["app-junk-0"] == 1)
    setup.gate.now += FRESH_SECONDS + 1
    assert await setup.get("app-good-1") == "chat"  # loaded again
    assert await setup.get("app-own-good", own_key=True) == "chat"
    assert setup.gate.calls["app-good-1"] == 4
    assert sum(calls for key, calls in setup.gate.calls.items() if "junk" in key) == 1
    setup.gate.opened.set()
    assert set(await asyncio.gather(*junk)) == {"invalid_api_key"}


async def test_addresses_take_turns_with_their_new_keys(setup: Setup) -> None:
    """A key of another address waits for two junk keys: the one that is being checked, and the next one."""
    first = asyncio.create_task(setup.get("app-junk-first", "192.0.2.1"))
    await until(lambda: setup.gate.checked == ["app-junk-first"])
    junk = [asyncio.create_task(setup.get(f"app-junk-{number}", "192.0.2.1")) for number in range(50)]
    await asyncio.sleep(0)  # their tasks start, and then the loads of their profiles
    others = [asyncio.create_task(setup.get(f"app-good-{number}", f"192.0.2.{number}")) for number in (2, 3)]
    setup.gate.opened.set()
    assert await asyncio.gather(*others) == ["chat", "chat"]
    assert setup.gate.checked[:4] == ["app-junk-first", "app-junk-0", "app-good-2", "app-good-3"]
    assert set(await asyncio.gather(first, *junk)) == {"invalid_api_key"}


async def test_a_check_that_is_cancelled_lets_the_next_begin() -> None:
    keys = NewKeys(LimitSettings(key_check_concurrency=1), lambda: 0.0)
    order: list[str] = []

    async def check(name: str) -> None:
        async with keys.check(name):
            order.append(name)

    async with keys.check("first"):
        tasks = {name: asyncio.create_task(check(name)) for name in ("waits", "has just begun", "next")}
        await asyncio.sleep(0)  # they start
        tasks["waits"].cancel()
    tasks["has just begun"].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert order == ["next"]
    async with keys.check("again"):
        pass


@pytest.mark.parametrize("queue", [200, 20])
async def test_the_queue_of_new_keys_is_limited(queue: int) -> None:
    async with limited(LimitSettings(key_check_queue=queue)) as setup:
        junk = [asyncio.create_task(setup.get(f"app-a-{number}", "192.0.2.1")) for number in range(queue)]
        await until(lambda: sum(task.done() for task in junk) == queue // 2)
        other = [asyncio.create_task(setup.get(f"app-b-{number}", "192.0.2.2")) for number in range(queue)]
        await until(lambda: sum(task.done() for task in other) == queue // 2)
        assert await setup.get("app-good-1", "192.0.2.3") == "too_many_keys"
        setup.gate.opened.set()
        codes = Counter(await asyncio.gather(*junk, *other))
        assert codes == {"invalid_api_key": queue, "too_many_keys": queue}
        assert await setup.get("app-good-1", "192.0.2.1") == "chat"


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_so_many_new_keys_are_checked_at_once(concurrency: int) -> None:
    async with limited(LimitSettings(key_check_concurrency=concurrency)) as setup:
        junk = [asyncio.create_task(setup.get(f"app-junk-{number}")) for number in range(10)]
        await until(lambda: setup.gate.calls.total() == concurrency)
        # The server's own keys have slots of their own. Dify gets this call after those that had begun.
        assert await setup.get("app-own-good", own_key=True) == "chat"
        assert sum(calls for key, calls in setup.gate.calls.items() if "junk" in key) == concurrency
        setup.gate.opened.set()
        assert set(await asyncio.gather(*junk)) == {"invalid_api_key"}


async def test_the_check_of_a_new_key_has_a_time_limit() -> None:
    async with limited(LimitSettings(key_check_timeout=0.05)) as setup:
        with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s"):
            await setup.get("app-junk")


async def test_rejections_are_not_remembered_without_a_pause() -> None:
    async with limited(LimitSettings(key_check_pause=0)) as setup:
        setup.gate.opened.set()
        for _ in range(3):
            assert await setup.get("app-junk") == "invalid_api_key"
        assert setup.gate.calls["app-junk"] == 3


async def test_rejections_are_remembered_for_a_while(setup: Setup) -> None:
    setup.gate.opened.set()
    for _ in range(3):
        assert await setup.get("app-junk") == "invalid_api_key"
    assert setup.gate.calls["app-junk"] == 1
    setup.gate.now += 11
    assert await setup.get("app-junk") == "invalid_api_key"
    assert setup.gate.calls["app-junk"] == 2
    for number in range(MAX_REJECTED + 10):
        await setup.get(f"app-junk-{number}")
    assert len(setup.profiles._new_keys._rejected) == MAX_REJECTED


async def test_a_key_is_accepted_until_dify_rejects_it(setup: Setup) -> None:
    app = setup.app("app-good-1")
    assert not setup.profiles.accepted(app)
    await setup.get("app-good-1")
    assert setup.profiles.accepted(app)
    setup.gate.now += FRESH_SECONDS + KNOWN_SECONDS - 1
    assert setup.profiles.accepted(app)
    setup.gate.now += 2
    assert not setup.profiles.accepted(app)
    await setup.get("app-good-1")
    setup.gate.rejecting = True
    setup.gate.opened.set()
    setup.gate.now += FRESH_SECONDS + 1
    assert setup.profiles.accepted(app)
    assert await setup.get("app-good-1") == "invalid_api_key"
    assert not setup.profiles.accepted(app)
