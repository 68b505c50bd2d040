"""A real server process that shuts down stops the runs that were abandoned just before."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from functools import partial

import httpx2
import pytest

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.raw_client import Client, until
from tests.api.test_shutdown import Server, ready, server
from tests.cli.program import Program

SLOTS = 8
"""All of them are taken, so that Dify answers no stop call while the streams are open."""

ENDLESS = "SLOW:1000x100"
"""An answer that takes 100 s, longer than the test waits."""


@pytest.fixture
def full_dify() -> Iterator[DemoServer]:
    with DemoServer(slots=SLOTS) as running:
        yield running


async def abandon_all(running: Server, dify: DemoServer) -> None:
    """Take all slots of Dify, with streams and whole answers, and disconnect."""
    clients = [Client(running.port) for _ in range(SLOTS)]
    for number, client in enumerate(clients, 1):
        await client.ask(ENDLESS, "demo-chat", stream=number % 2 == 0)
        await dify.log.wait_for(partial(has_started, number))
    assert len(dify.log.active) == SLOTS
    await asyncio.gather(*(client.disconnect() for client in clients))


def has_started(count: int, log: DemoLog) -> bool:
    return sum(run.first_event_at is not None for run in log.runs) == count


def assert_all_stopped(running: Server, dify: DemoServer) -> None:
    dify.log.wait(lambda log: len(log.stopped_runs) == SLOTS)
    logged = running.process.logged
    assert logged.count("turn_stopped") == SLOTS
    assert "stops_unconfirmed" not in logged
    assert "Traceback" not in logged


@pytest.mark.parametrize(("workers", "grace"), [("1", "0"), ("1", "20"), ("2", "0")])
async def test_runs_abandoned_just_before_sigterm_are_stopped(
    program: Program, full_dify: DemoServer, http: httpx2.AsyncClient, workers: str, grace: str
) -> None:
    with server(program, full_dify, WORKERS=workers, SHUTDOWN_GRACE=grace) as running:
        await ready(http, running)
        await abandon_all(running, full_dify)
        running.stop()
        assert await running.exit_code() == 0
        assert_all_stopped(running, full_dify)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_runs_abandoned_before_a_second_ctrl_c_are_stopped(
    program: Program, full_dify: DemoServer, http: httpx2.AsyncClient, workers: str
) -> None:
    with server(program, full_dify, WORKERS=workers) as running:
        await ready(http, running)
        await abandon_all(running, full_dify)
        running.process.process.send_signal(signal.SIGINT)
        await until(lambda: "stops_awaited" in running.process.logged)
        running.process.process.send_signal(signal.SIGINT)
        assert await running.exit_code() == 130
        assert_all_stopped(running, full_dify)


async def test_the_number_of_unconfirmed_stops_is_logged(program: Program, http: httpx2.AsyncClient) -> None:
    """These runs send no event, so they have no task id to stop them with."""
    with (
        DemoServer(faults=True) as dify,
        server(program, dify, SHUTDOWN_GRACE="0") as running,
    ):
        clients = [Client(running.port) for _ in range(2)]
        for client in clients:
            await client.ask("SILENCE", "demo-chat", stream=True)
        await dify.log.wait_for(lambda log: len(log.runs) == len(clients))
        await asyncio.gather(*(client.disconnect() for client in clients))
        running.stop()
        assert await running.exit_code() == 0
        assert "stops_unconfirmed" in running.process.logged
        assert "count=2" in running.process.logged.partition("stops_unconfirmed")[2]
