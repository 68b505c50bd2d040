"""Starts coroutines without a task, since most of them never have to wait.

A task costs its creation, a turn of the event loop, and another one for each wait. ``start_now`` runs a coroutine up to
its first wait in the caller's stack; only one that waits gets a task, which continues it. Python 3.12 has the same as
``asyncio.Task(…, eager_start=True)``.

Before its first wait such a coroutine belongs to no task. ``asyncio.timeout`` needs one, so a coroutine that uses it
awaits ``in_task`` before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, Generic, NamedTuple, TypeVar

_T = TypeVar("_T")


class Started(NamedTuple, Generic[_T]):
    """A coroutine that was started: its ``result``, unless the ``task`` continues it."""

    result: _T | None
    task: asyncio.Task[_T] | None


def start_now(work: Coroutine[Any, Any, _T]) -> Started[_T]:
    """Run ``work`` up to its first wait. Raises what it raises until then. Must not be called inside a task."""
    try:
        awaited = work.send(None)
    except StopIteration as end:
        return Started(end.value, None)
    return Started(None, asyncio.get_running_loop().create_task(_adopt(work, awaited)))


def start_task(work: Coroutine[Any, Any, _T]) -> Started[_T]:
    """Run ``work`` in a task from its beginning, in the next iteration of the loop."""
    return Started(None, asyncio.get_running_loop().create_task(work))


async def in_task() -> None:
    """Return inside a task, which ``asyncio.timeout`` and ``asyncio.current_task`` need."""
    if asyncio.current_task() is None:
        await _give_way()


async def _adopt(work: Coroutine[Any, Any, _T], awaited: Any) -> _T:
    return await _continue(work, awaited)


@coroutine
def _continue(work: Coroutine[Any, Any, _T], awaited: Any) -> Generator[Any, Any, _T]:
    """Continue ``work``, which waits for ``awaited``, with what the task sends and throws."""
    try:
        while True:
            try:
                sent = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the work handles it
                awaited = work.throw(error)
            else:
                awaited = work.send(sent)
    except StopIteration as end:
        result: _T = end.value
        return result


@coroutine
def _give_way() -> Generator[None, None, None]:
    yield
