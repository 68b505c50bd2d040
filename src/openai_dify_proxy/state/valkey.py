"""State in Valkey or Redis (7.0 or later), which any number of replicas can share.

Runs that arrive during an exchange wait and share the next one. Under load one exchange carries many runs, which costs
much less than one exchange each, and one connection is enough. Large runs have exchanges of their own, on a second
connection, so that no other run waits for them. Commands are never sent twice, since a repeated ``Take`` would find
nothing: a broken connection is an error for its runs, and the next exchange opens a new one.

Every key begins with ``openai-dify-proxy:``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from openai_dify_proxy.eager import in_task
from openai_dify_proxy.state import buckets, counters
from openai_dify_proxy.state.deadlines import Deadlines, call_late
from openai_dify_proxy.state.eviction import MAX_BYTES
from openai_dify_proxy.state.servers import Command, Server
from openai_dify_proxy.state.store import (
    LARGE_PATIENCE,
    STATE_TIMEOUT,
    Add,
    Count,
    Draw,
    Get,
    Operation,
    StateUnavailable,
    Take,
    is_large,
)
from openai_dify_proxy.state.valkey_index import PREFIX, OwnerIndex

MAX_REASON = 200
"""Characters of an error's text."""

log = structlog.get_logger(__name__)


class _ValkeyRun(NamedTuple):
    operations: Sequence[Operation]
    commands: Sequence[Command]
    result: asyncio.Future[list[bytes | None]]


class _Lane:
    """Runs that wait for the exchanges of one connection. ``timeout`` limits an exchange, in seconds."""

    def __init__(self, most: int | None, timeout: float) -> None:
        self.waiting: list[_ValkeyRun] = []
        self.sending: asyncio.Task[None] | None = None
        self.timeout = timeout
        self._most = most

    def next_batch(self) -> list[_ValkeyRun]:
        """Remove and return the runs of the next exchange."""
        # A result that is done belongs to a caller that stopped waiting.
        batch = [run for run in self.waiting[: self._most] if not run.result.done()]
        del self.waiting[: self._most]
        return batch


class ValkeyStore:
    """A Store of one event loop. It connects on the first run.

    ``timeout`` limits one run, connecting included, in seconds; ``clock`` returns seconds since the epoch.
    """

    def __init__(
        self,
        server: Server,
        *,
        max_entries: int,
        max_bytes: int = MAX_BYTES,
        timeout: float = STATE_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._index = OwnerIndex(max_entries, max_bytes, clock)
        self._small = _Lane(None, timeout)
        self._large = _Lane(1, timeout * LARGE_PATIENCE)
        self._deadlines = Deadlines()
        self._steps: AsyncIterator[None] | None = None
        self._closed = False

    async def run(self, *operations: Operation) -> list[bytes | None]:
        if self._closed:
            raise StateUnavailable("the state is closed")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[bytes | None]] = loop.create_future()
        lane = self._large if is_large(operations) else self._small
        lane.waiting.append(_ValkeyRun(operations, [_command(operation) for operation in operations], result))
        self._deadlines.watch(result, lane.timeout)
        if lane.sending is None:
            lane.sending = loop.create_task(self._send_all(lane), name="state")
        return await result

    def run_now(self, *operations: Operation) -> None:
        """Return None: every run waits for the server."""

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(lane.sending for lane in (self._small, self._large) if lane.sending is not None))
        try:
            await self._exchange(self._index.flush(), self._small.timeout)
        except StateUnavailable as error:
            log.debug("state_close_failed", reason=str(error))
        self._deadlines.close()
        await self._server.close()

    async def _send_all(self, lane: _Lane) -> None:
        """Send the waiting runs of the lane, and do one step of tidying after each exchange of small ones."""
        while lane.waiting or (lane is self._small and self._steps is not None):
            if batch := lane.next_batch():
                await self._send(batch, lane.timeout)
            if lane is self._small:
                await self._tidy()
        lane.sending = None

    async def _send(self, batch: Sequence[_ValkeyRun], timeout: float) -> None:
        commands = [command for run in batch for command in run.commands]
        operations = [operation for run in batch for operation in run.operations]
        try:
            replies = await self._exchange([*commands, *self._index.commands(operations)], timeout)
            _check(replies[len(commands) :])
        except StateUnavailable as error:
            for run in batch:
                _finish(run, error)
            return
        self._index.count(operations, replies[: len(commands)])
        start = 0
        for run in batch:
            end = start + len(run.operations)
            _finish(run, replies[start:end])
            start = end

    async def _tidy(self) -> None:
        """Do one step of tidying, if it is time."""
        if self._closed:
            self._steps = None
        elif self._steps is None and self._index.due:
            self._steps = self._index.tidy(self._checked_exchange)
        if self._steps is None:
            return
        try:
            await anext(self._steps)
        except StopAsyncIteration:
            self._steps = None
        except StateUnavailable as error:
            self._steps = None
            log.debug("state_trim_failed", reason=str(error))  # the next run reports it, and a later one trims
        except Exception as error:  # noqa: BLE001 - replies of unexpected types; the task must survive
            self._steps = None
            log.warning("state_trim_failed", reason=f"unexpected reply: {type(error).__name__}")

    async def _checked_exchange(self, commands: Sequence[Command]) -> list[Any]:
        return _check(await self._exchange(commands, self._small.timeout))

    async def _exchange(self, commands: Sequence[Command], timeout: float) -> list[Any]:
        if not commands:
            return []
        await in_task()
        try:
            async with _late_timeout(timeout):
                return await self._server.exchange(commands)
        except TimeoutError:
            raise StateUnavailable(f"no answer within {timeout:g} s") from None
        except Exception as error:  # noqa: BLE001 - the library raises undocumented types, and the task must survive
            raise StateUnavailable(_reason(error)) from None


@asynccontextmanager
async def _late_timeout(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError if the block takes longer, and also ``LATE_STEPS`` steps of the loop beyond that."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        ended = False

        def expire() -> None:
            if not ended:
                limit.reschedule(loop.time())

        timer = loop.call_later(seconds, call_late, loop, expire)
        try:
            yield
        finally:
            ended = True
            timer.cancel()


def _command(operation: Operation) -> Command:
    key = PREFIX + operation.key
    if isinstance(operation, Draw):
        numbers = (operation.amount, operation.rate, operation.burst)
        return ("EVAL", buckets.LUA, 1, key, *map(repr, numbers), int(operation.forced))
    if isinstance(operation, Count):
        named = [part for pair in operation.amounts for part in pair]
        return ("EVAL", counters.LUA, 1, key, max(1, round(operation.ttl * 1000)), *named)
    if isinstance(operation, Get):
        return ("GET", key)
    if isinstance(operation, Take):
        return ("GETDEL", key)
    unless_present = ("NX",) if isinstance(operation, Add) else ()
    lifetime = () if operation.ttl is None else ("PX", max(1, round(operation.ttl * 1000)))
    return ("SET", key, operation.value, *unless_present, "GET", *lifetime)


def _check(replies: list[Any]) -> list[Any]:
    """Return the replies. Raises StateUnavailable if one is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise StateUnavailable(_reason(reply))
    return replies


def _values(replies: list[Any]) -> list[bytes | None]:
    """Return the replies to operations. Raises StateUnavailable if one is an error, or of a type that no value has."""
    if not all(reply is None or isinstance(reply, bytes) for reply in _check(replies)):
        raise StateUnavailable("a reply is not a value")
    return replies


def _finish(run: _ValkeyRun, outcome: list[Any] | StateUnavailable) -> None:
    if run.result.done():
        return
    try:
        if isinstance(outcome, StateUnavailable):
            raise outcome
        run.result.set_result(_values(outcome))
    except StateUnavailable as error:
        run.result.set_exception(error)


def _reason(error: Exception) -> str:
    """Return the error's text without a full stop, and without command arguments, which hold keys and values."""
    known = isinstance(error, RedisConnectionError | ResponseError | OSError)
    return str(error).partition(", with args")[0].rstrip(".")[:MAX_REASON] if known else type(error).__name__
