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
from typing import Any, Generic, TypeVar

from msgspec import Struct

_T = TypeVar("_T")


class Started(Struct, Generic[_T], frozen=True):
    """A coroutine that was started: its ``result``, unless the ``task`` continues it."""

    result: Any
    task: asyncio.Task[_T] | None = None


def start_now(work: Coroutine[Any, Any, _T], loop: asyncio.AbstractEventLoop) -> Started[_T]:
    """Run ``work`` up to its first wait. Raises what it raises until then.

    Inside a task it starts in a task of its own: its timeouts would cancel the other one. ``loop`` is the running loop:
    ``asyncio.get_running_loop`` makes a system call in Python 3.11.
    """
    if asyncio.current_task(loop) is not None:
        return start_task(work, loop)
    try:
        awaited = work.send(None)
    except StopIteration as end:
        return Started(end.value)
    return Started(None, loop.create_task(_Waiting(work, awaited)))


def start_task(work: Coroutine[Any, Any, _T], loop: asyncio.AbstractEventLoop) -> Started[_T]:
    """Run ``work`` in a task from its beginning, in the next iteration of the loop."""
    return Started(None, loop.create_task(work))


async def in_task() -> None:
    """Return inside a task, which ``asyncio.timeout`` and ``asyncio.current_task`` need."""
    if asyncio.current_task() is None:
        await _give_way()


class _Waiting(Coroutine[Any, Any, _T]):
    """Started ``work`` that waits for ``awaited``, as a coroutine for a task.

    A task that is cancelled before its first step would not enter a coroutine function, and the work could not clean
    up.
    """

    __slots__ = ("_awaited", "_begun", "_work")

    def __init__(self, work: Coroutine[Any, Any, _T], awaited: Any) -> None:
        self._work = work
        self._awaited = awaited
        self._begun = False

    def __await__(self) -> Generator[Any, Any, _T]:
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        if self._begun:
            return self._work.send(value)
        self._begun = True
        awaited, self._awaited = self._awaited, None
        return awaited

    def throw(self, *error: Any) -> Any:
        self._begun = True
        self._awaited = None
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()


@coroutine
def _give_way() -> Generator[None, None, None]:
    yield
