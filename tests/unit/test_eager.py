"""Coroutines that start without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

import pytest

from openai_dify_proxy.eager import Started, in_task, start_now
from tests.limits import PATIENCE

_T = TypeVar("_T")


async def called_back(start: Callable[[], Any]) -> Any:
    """Call ``start`` in a callback of the loop, outside all tasks, and return its result or raise its error."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def call() -> None:
        try:
            result.set_result(start())
        except Exception as error:  # noqa: BLE001 - raised in the test
            result.set_exception(error)

    loop.call_soon(call)
    return await result


def start_here(work: Coroutine[Any, Any, _T]) -> Started[_T]:
    return start_now(work, asyncio.get_running_loop())


async def start(work: Coroutine[Any, Any, Any]) -> Started[Any]:
    started: Started[Any] = await called_back(lambda: start_here(work))
    return started


async def add(left: Awaitable[int], right: Awaitable[int]) -> int:
    return await left + await right


async def three() -> int:
    return 3


async def test_work_that_does_not_wait_needs_no_task() -> None:
    assert await start(add(three(), three())) == Started(6)


async def test_a_task_continues_work_that_waits() -> None:
    loop = asyncio.get_running_loop()
    left, right = loop.create_future(), loop.create_future()
    started = await start(add(left, right))
    assert started.task is not None
    left.set_result(1)
    await asyncio.sleep(0)
    assert not started.task.done()
    right.set_result(2)
    assert await started.task == 3


async def test_a_future_may_be_done_before_the_task_runs() -> None:
    future = asyncio.get_running_loop().create_future()

    def start_and_finish() -> Started[int]:
        started = start_here(add(future, three()))
        future.set_result(1)
        return started

    started = await called_back(start_and_finish)
    assert await started.task == 4


async def test_work_may_give_way() -> None:
    started = await start(asyncio.sleep(0, "done"))
    assert started.task is not None
    assert await started.task == "done"


async def test_errors_before_and_behind_the_first_wait() -> None:
    async def fail(wait: bool) -> None:
        if wait:
            await asyncio.sleep(0)
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        await start(fail(False))
    started = await start(fail(True))
    assert started.task is not None
    with pytest.raises(ValueError, match="failed"):
        await started.task


async def test_work_can_be_cancelled_and_handles_it() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    started = await start(wait())
    assert started.task is not None
    await asyncio.sleep(0)
    started.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await started.task
    assert seen == ["cleaned up"]


async def test_work_may_be_cancelled_at_once() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    def start_and_cancel() -> Started[None]:
        started = start_here(wait())
        assert started.task is not None
        started.task.cancel()
        return started

    started = await called_back(start_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await started.task
    assert seen == ["cleaned up"]


async def limited() -> str:
    await in_task()
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        return "timed out"
    return "never"


async def test_timeouts_work_in_a_task() -> None:
    started = await start(limited())
    assert started.task is not None
    assert await started.task == "timed out"


async def test_work_that_is_started_inside_a_task_has_its_own() -> None:
    async def begin() -> Started[str]:
        return start_here(limited())

    started = await asyncio.create_task(begin())
    assert started.task is not None
    done, _ = await asyncio.wait([started.task], timeout=PATIENCE)
    assert [task.result() for task in done] == ["timed out"]


async def test_a_task_stays_itself() -> None:
    before = asyncio.current_task()
    await in_task()
    assert asyncio.current_task() is before


async def test_the_context_is_kept() -> None:
    name: ContextVar[str] = ContextVar("name", default="")

    async def read() -> str:
        await asyncio.sleep(0)
        return name.get()

    def set_and_start() -> Started[str]:
        name.set("own")
        return start_here(read())

    started = await called_back(set_and_start)
    assert await started.task == "own"
