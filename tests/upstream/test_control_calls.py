"""At most two control calls to one Dify at the same time; stop calls first."""

from __future__ import annotations

import asyncio

import pytest

from openai_dify_proxy.upstream.control_calls import ControlCalls

DIFY, OTHER, CLOUD = "http://dify.example/v1", "http://other.example/v1", "https://api.dify.ai/v1"


class Calls:
    """Calls that last until they are ended, in the order in which they get their connections."""

    def __init__(self) -> None:
        self.control = ControlCalls(lambda url: url != CLOUD)
        self.started: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def call(self, name: str, url: str = DIFY, *, first: bool = False) -> asyncio.Task[None]:
        """Start a call, and let it wait."""
        self._ends[name] = asyncio.Event()

        async def run() -> None:
            async with self.control.connection(url, first=first):
                self.started.append(name)
                await self._ends[name].wait()

        task = asyncio.create_task(run())
        await settle()
        return task

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def calls() -> Calls:
    return Calls()


async def test_stop_calls_come_first(calls: Calls) -> None:
    tasks = [await calls.call(name) for name in ("a", "b", "c", "d")]
    tasks += [await calls.call(name, first=True) for name in ("stop 1", "stop 2")]
    assert calls.started == ["a", "b"]
    for name in ("a", "b", "stop 1", "stop 2", "c", "d"):
        await calls.end(name)
    assert calls.started == ["a", "b", "stop 1", "stop 2", "c", "d"]
    await asyncio.gather(*tasks)


async def test_each_dify_has_its_own_connections_and_the_cloud_any_number(calls: Calls) -> None:
    tasks = [await calls.call(f"{url} {number}", url) for url in (DIFY, OTHER, CLOUD) for number in range(4)]
    assert len([name for name in calls.started if DIFY in name]) == 2
    assert len([name for name in calls.started if OTHER in name]) == 2
    assert len([name for name in calls.started if CLOUD in name]) == 4
    for url in (DIFY, OTHER, CLOUD):
        for number in range(4):
            await calls.end(f"{url} {number}")
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("got_it", [False, True], ids=["while it waits", "as it gets its connection"])
async def test_a_cancelled_call_leaves_its_connection_to_the_next(calls: Calls, got_it: bool) -> None:
    tasks = [await calls.call(name) for name in ("a", "b", "cancelled", "next")]
    if got_it:
        calls._ends["a"].set()
        while not tasks[0].done():  # noqa: ASYNC110 - one step of the loop at a time
            await asyncio.sleep(0)
    tasks[2].cancel()
    await calls.end("a")
    await calls.end("b")
    assert calls.started[-1] == "next"
    await calls.end("next")
    await calls.end("cancelled")
    await asyncio.gather(*tasks, return_exceptions=True)
    again = [await calls.call(name) for name in ("e", "f")]
    assert calls.started[-2:] == ["e", "f"]
    await calls.end("e")
    await calls.end("f")
    await asyncio.gather(*again)
