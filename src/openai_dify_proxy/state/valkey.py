"""State in Valkey or Redis (7.0 or later), which any number of replicas can share.

Runs that arrive during an exchange wait and share the next one. Under load one exchange carries many runs, which costs
much less than one exchange each, and one connection is enough. Commands are never sent twice, since a repeated ``Take``
would find nothing: a broken connection is an error for its runs, and the next exchange opens a new one.

Every key begins with ``openai-dify-proxy:``. The sorted set ``openai-dify-proxy:index`` holds the keys of expiring
entries, ordered by the time of writing, so that the oldest can be removed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from openai_dify_proxy.state.servers import Command, Server
from openai_dify_proxy.state.store import Add, Get, Operation, Put, StateUnavailable, Take

PREFIX = "openai-dify-proxy:"
INDEX = PREFIX + "index"

MAX_TRIM = 5000
"""How many entries are removed at once when there are too many."""

MAX_REASON = 200
"""Characters of an error's text."""

log = structlog.get_logger(__name__)


class _ValkeyBatch(NamedTuple):
    operations: Sequence[Operation]
    commands: Sequence[Command]
    result: asyncio.Future[list[bytes | None]]


class ValkeyStore:
    """A Store of one event loop. It connects on the first run.

    ``timeout`` is in seconds, for one exchange; ``clock`` returns seconds since the epoch.
    """

    def __init__(
        self, server: Server, *, max_entries: int, timeout: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._server = server
        self._max_entries = max_entries
        self._timeout = timeout
        self._clock = clock
        self._waiting: list[_ValkeyBatch] = []
        self._sending: asyncio.Task[None] | None = None
        self._untrimmed = 0
        self._closed = False

    async def run(self, *operations: Operation) -> list[bytes | None]:
        if self._closed:
            raise StateUnavailable("the state is closed")
        result: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_ValkeyBatch(operations, [_command(operation) for operation in operations], result))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name="state")
        return await result

    async def close(self) -> None:
        self._closed = True
        if self._sending is not None:
            await self._sending
        await self._server.close()

    async def _send_all(self) -> None:
        while self._waiting:
            # A result that is done belongs to a caller that stopped waiting.
            batch = [run for run in self._waiting if not run.result.done()]
            self._waiting = []
            await self._send(batch)
        self._sending = None

    async def _send(self, batch: Sequence[_ValkeyBatch]) -> None:
        commands = [command for run in batch for command in run.commands]
        index = self._index([operation for run in batch for operation in run.operations])
        try:
            replies = await self._exchange([*commands, *index])
            _check(replies[len(commands) :])
        except StateUnavailable as error:
            for run in batch:
                _finish(run, error)
            return
        start = 0
        for run in batch:
            end = start + len(run.operations)
            _finish(run, replies[start:end])
            start = end
        try:
            await self._trim()
        except StateUnavailable as error:
            log.debug("state_trim_failed", reason=str(error))  # the next run reports it, and a later one trims

    def _index(self, operations: Sequence[Operation]) -> list[Command]:
        """Return the commands that update the index by the last operation on each key."""
        expiring: dict[str, bool] = {}
        for operation in operations:
            if isinstance(operation, Put | Add):
                expiring[operation.key] = operation.ttl is not None
            elif isinstance(operation, Take):
                expiring[operation.key] = False
        now = self._clock()
        added = [part for key, is_expiring in expiring.items() if is_expiring for part in (now, key)]
        removed = [key for key, is_expiring in expiring.items() if not is_expiring]
        self._untrimmed += len(added) // 2
        commands: list[Command] = [("ZADD", INDEX, *added)] if added else []
        return [*commands, ("ZREM", INDEX, *removed)] if removed else commands

    async def _trim(self) -> None:
        """Remove the oldest entries if there are too many; checked after every hundredth of the limit is written."""
        if self._untrimmed <= self._max_entries // 100:
            return
        self._untrimmed = 0
        (count,) = _check(await self._exchange([("ZCARD", INDEX)]))
        if not isinstance(count, int):
            raise StateUnavailable("the size of the index is not a number")
        if count > self._max_entries:
            last = min(count - self._max_entries, MAX_TRIM) - 1
            (oldest,) = _check(await self._exchange([("ZRANGE", INDEX, 0, last)]))
            if not isinstance(oldest, list) or not all(isinstance(key, bytes) for key in oldest):
                raise StateUnavailable("the index is not a list of keys")
            # One command per key: in a cluster the keys are on different servers.
            removals: list[Command] = [("UNLINK", PREFIX.encode() + key) for key in oldest]
            _check(await self._exchange([*removals, ("ZREM", INDEX, *oldest)]))

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        try:
            async with asyncio.timeout(self._timeout):
                return await self._server.exchange(commands)
        except TimeoutError:
            raise StateUnavailable(f"no answer within {self._timeout:g} s") from None
        except Exception as error:  # noqa: BLE001 - the library raises undocumented types, and the task must survive
            raise StateUnavailable(_reason(error)) from None


def _command(operation: Operation) -> Command:
    key = PREFIX + operation.key
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


def _finish(run: _ValkeyBatch, outcome: list[Any] | StateUnavailable) -> None:
    if run.result.done():
        return
    try:
        if isinstance(outcome, StateUnavailable):
            raise outcome
        run.result.set_result(_values(outcome))
    except StateUnavailable as error:
        run.result.set_exception(error)


def _reason(error: Exception) -> str:
    """Return the error's text without the command arguments in it, which hold keys and values."""
    known = isinstance(error, RedisConnectionError | ResponseError | OSError)
    return str(error).partition(", with args")[0][:MAX_REASON] if known else type(error).__name__
