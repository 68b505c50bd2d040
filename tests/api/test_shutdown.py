"""SIGTERM to a real server process, while turns run."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx2
import pytest

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import chat_body, chunks_of, error_of, failure_of
from tests.cli.program import Program, Running
from tests.limits import PATIENCE

MODES = {
    "demo-chat": "@1.11",
    "demo-agent-chat": "@1.13",
    "demo-advanced-chat": "@1.13",
    "demo-completion": "@1.16",
    "demo-workflow": "@1.16",
    "demo-agent": "@1.16",
}


@dataclass
class Server:
    process: Running
    url: str
    port: int

    def stop(self) -> None:
        self.process.process.send_signal(signal.SIGTERM)

    async def exit_code(self) -> int:
        return await asyncio.to_thread(self.process.process.wait, PATIENCE)


@contextmanager
def server(program: Program, demo: DemoServer, **env: str) -> Iterator[Server]:
    config = "\n".join(f'[apps.{name}]\napi_key = "app-{name}{version}"' for name, version in MODES.items())
    (program.directory / "apps.toml").write_text(config)
    with program.start("serve", "--port", "0", "--config", "apps.toml", DIFY_API_URL=demo.url, **env) as process:
        url = process.url()
        yield Server(process, url, int(url.removesuffix("/v1").rpartition(":")[2]))


@asynccontextmanager
async def streaming(http: httpx2.AsyncClient, url: str, text: str, model: str) -> AsyncIterator[httpx2.Response]:
    body = chat_body(text, model, stream=True)
    async with http.stream("POST", f"{url}/chat/completions", json=body) as reply:
        assert reply.status_code == 200
        yield reply


async def read(http: httpx2.AsyncClient, url: str, text: str, model: str) -> str:
    async with streaming(http, url, text, model) as reply:
        return (await reply.aread()).decode()


async def test_a_turn_that_ends_within_the_grace_period_is_completed(
    program: Program, demo: DemoServer, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    with server(program, demo, SHUTDOWN_GRACE=str(PATIENCE)) as running:
        stream = asyncio.create_task(read(http, running.url, "SLOW:10x150", "demo-chat"))
        whole = asyncio.create_task(
            http.post(f"{running.url}/chat/completions", json=chat_body("SLOW:10x150", "demo-workflow"))
        )
        await log.wait_for(lambda log: len([run for run in log.runs if run.first_event_at]) == 2)
        running.stop()
        assert "tick 10" in json.dumps(chunks_of(await stream))
        assert "tick 10" in (await whole).text
        assert await running.exit_code() == 0
    assert not log.stops
    assert [run.state for run in log.runs] == ["finished"] * 2


async def test_new_connections_are_refused_during_the_grace_period(
    program: Program, demo: DemoServer, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    with server(program, demo, SHUTDOWN_GRACE=str(PATIENCE)) as running:
        async with streaming(http, running.url, "SLOW:40x150", "demo-chat") as reply:
            await log.wait_for(lambda log: log.runs)
            running.stop()
            await connection_refused(running.port)
            assert log.runs[0].state == "running"
            await reply.aread()
        assert await running.exit_code() == 0


async def connection_refused(port: int) -> None:
    """Connect until the port refuses connections."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue  # the socket was being closed
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_turns_beyond_the_grace_period_are_stopped_in_dify_and_fail(
    program: Program, demo: DemoServer, log: DemoLog, http: httpx2.AsyncClient, workers: str
) -> None:
    """All modes, with and without streaming, some without a task id yet."""
    with server(program, demo, SHUTDOWN_GRACE="1", WORKERS=workers) as running:
        await ready(http, running)
        streams = [asyncio.create_task(read(http, running.url, "SLOW:1000x100", model)) for model in MODES]
        wholes = [
            asyncio.create_task(http.post(f"{running.url}/chat/completions", json=chat_body("SLOW:1000x100", model)))
            for model in MODES
        ]
        await log.wait_for(lambda log: len([run for run in log.runs if run.first_event_at]) == 2 * len(MODES))
        running.stop()
        for body in await asyncio.gather(*streams):
            assert "tick 1" in body
            assert failure_of(body)["code"] == "shutting_down"
        for reply in await asyncio.gather(*wholes):
            assert (reply.status_code, error_of(reply)["code"]) == (503, "shutting_down")
            assert reply.headers["x-should-retry"] == "false"
        assert await running.exit_code() == 0
        assert "Traceback" not in running.process.logged
    await log.wait_for(lambda log: len([stop for stop in log.stops if stop.effective]) == 2 * len(MODES))
    users = {run.task_id: run.user for run in log.runs}
    assert {stop.task_id: stop.user for stop in log.stops} == users
    await log.wait_for(lambda log: all(run.state == "stopped" for run in log.runs))


async def ready(http: httpx2.AsyncClient, running: Server) -> None:
    """Wait until a worker serves. The parent process prints the address before that; the socket queues requests."""
    assert (await http.get(running.url.replace("/v1", "/ready"))).status_code == 200


async def test_a_turn_without_a_task_id_is_stopped(
    program: Program, demo: DemoServer, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    with server(program, demo, SHUTDOWN_GRACE="0", FIRST_EVENT_GRACE="0") as running:
        waiting = asyncio.create_task(read(http, running.url, "QUEUE:1.5 SLOW:1000x100", "demo-workflow"))
        await log.wait_for(lambda log: log.runs)
        running.stop()
        assert failure_of(await waiting)["code"] == "shutting_down"
        await log.wait_for(lambda log: log.stops)
        assert await running.exit_code() == 0
        assert "Traceback" not in running.process.logged
    (run,) = log.runs
    assert run.state == "stopped"


async def test_an_idle_server_exits_immediately(program: Program, demo: DemoServer, http: httpx2.AsyncClient) -> None:
    """Open idle connections do not delay it, even with a long grace period."""
    with server(program, demo, SHUTDOWN_GRACE="600") as running:
        assert (await http.get(running.url.replace("/v1", "/health"))).status_code == 200
        running.stop()
        assert await running.exit_code() == 0
