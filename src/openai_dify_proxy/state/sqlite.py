"""State in an SQLite file, which several processes of one machine can share.

A separate thread uses SQLite, so that a slow disk or a lock of another process does not block the event loop. The
thread takes all waiting runs, reads their entries with one statement, applies the operations in memory, and writes the
changes: one transaction with at most four statements for any number of runs. ``BEGIN IMMEDIATE`` locks out other
processes, which makes each operation atomic. A large run has a separate transaction, and at most one of them
comes before the waiting small runs.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import structlog

from openai_dify_proxy.state.deadlines import Deadlines
from openai_dify_proxy.state.entries import Entry, apply
from openai_dify_proxy.state.eviction import MAX_BYTES
from openai_dify_proxy.state.sqlite_file import VALUE, identity, open_database
from openai_dify_proxy.state.sqlite_tidying import SCAN_SECONDS, Tidying
from openai_dify_proxy.state.store import (
    LARGE_PATIENCE,
    STATE_TIMEOUT,
    Operation,
    StateUnavailable,
    is_large,
    is_read,
    size_of,
)

MAX_BATCH = 256
"""Runs in one transaction."""

MAX_BATCH_BYTES = 1024 * 1024
"""Bytes that one transaction writes, or one run."""

GATHER_SECONDS = 0.002
"""How long a run waits for others to share its transaction, if several shared one within this time before."""

_INSERT = "INSERT OR REPLACE INTO entries (key, expires, written, value, owner, data) VALUES (?, ?, ?, x'', ?, ?)"

log = structlog.get_logger(__name__)


class _SqliteRun(NamedTuple):
    operations: Sequence[Operation]
    size: int
    large: bool
    result: asyncio.Future[list[bytes | None]]


class SqliteStore:
    """A Store of one event loop. ``~`` in ``path`` is the user's home; missing directories are created.

    The first run opens the file, and after a fault the next run opens it again, so that a repaired file is used.
    ``timeout`` limits one run, in seconds. ``clock`` returns seconds since the epoch, which processes and restarts
    share.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_entries: int,
        max_bytes: int = MAX_BYTES,
        timeout: float = STATE_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._waiting: queue.SimpleQueue[_SqliteRun | None] = queue.SimpleQueue()
        tidying = Tidying(max_entries, max_bytes, clock)
        self._worker = _Worker(Path(path).expanduser().absolute(), self._waiting, tidying, clock)
        self._timeout = timeout
        self._deadlines = Deadlines()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run(self, *operations: Operation) -> list[bytes | None]:
        if self._closed:
            raise StateUnavailable("the state is closed")
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._worker.work, args=(loop,), name="state", daemon=True)
            self._thread.start()
        result: asyncio.Future[list[bytes | None]] = loop.create_future()
        large = is_large(operations)
        self._waiting.put(_SqliteRun(operations, size_of(operations), large, result))
        self._deadlines.watch(result, self._timeout * LARGE_PATIENCE if large else self._timeout)
        return await result

    async def close(self) -> None:
        self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)
        self._deadlines.close()


class _Worker:
    """The thread's work: batches of runs, and steps of tidying between them."""

    def __init__(
        self,
        path: Path,
        waiting: queue.SimpleQueue[_SqliteRun | None],
        tidying: Tidying,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._waiting = waiting
        self._tidying = tidying
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._small: deque[_SqliteRun] = deque()
        self._large: deque[_SqliteRun] = deque()
        self._steps: Iterator[None] | None = None
        self._gather_until = 0.0

    def work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Execute batches until None arrives in the queue; the runs before it are executed."""
        running = True
        while running or self._small or self._large:
            running = running and self._gather()
            for batch in (self._next_batch(), self._next_large()):
                if not batch:
                    continue
                outcome = self._outcome(batch)
                try:
                    loop.call_soon_threadsafe(_deliver, batch, outcome)
                except RuntimeError:  # the loop is closed, so nothing waits for the outcome
                    running = False
                    self._small.clear()
                    self._large.clear()
                if len(batch) > 1:
                    self._gather_until = time.monotonic() + GATHER_SECONDS
            self._tidy()
        self._disconnect()

    def _gather(self) -> bool:
        """Take the waiting runs from the queue; wait for one if there is nothing to do. Return False at None."""
        idle = self._steps is None and not self._small and not self._large
        try:
            run = self._waiting.get(timeout=SCAN_SECONDS) if idle else self._waiting.get_nowait()
            if run is not None and time.monotonic() < self._gather_until:
                time.sleep(GATHER_SECONDS)
            while run is not None:
                (self._large if run.large else self._small).append(run)
                run = self._waiting.get_nowait()
        except queue.Empty:
            return True
        return False

    def _next_batch(self) -> list[_SqliteRun]:
        batch: list[_SqliteRun] = []
        size = 0
        while self._small and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            run = self._small.popleft()
            if not run.result.done():  # else its caller has stopped waiting
                batch.append(run)
                size += run.size
        return batch

    def _next_large(self) -> list[_SqliteRun]:
        while self._large:
            run = self._large.popleft()
            if not run.result.done():
                return [run]
        return []

    def _outcome(self, batch: Sequence[_SqliteRun]) -> list[list[bytes | None]] | StateUnavailable:
        try:
            return self._execute([run.operations for run in batch])
        except (sqlite3.Error, OSError, StateUnavailable) as error:
            self._disconnect()
            return StateUnavailable(f"{self._path}: {error}")
        except Exception as error:  # noqa: BLE001 - the thread must survive bugs, or all callers would wait forever
            self._disconnect()
            return StateUnavailable(f"{self._path}: {type(error).__name__}")

    def _execute(self, runs: Sequence[Sequence[Operation]]) -> list[list[bytes | None]]:
        connection = self._connected()
        now = self._clock()
        keys = list({operation.key for operations in runs for operation in operations})
        if all(is_read(operation) for operations in runs for operation in operations):
            entries = _read(connection, keys)
            return [apply(operations, entries, now) for operations in runs]
        connection.execute("BEGIN IMMEDIATE")
        before = _read(connection, keys)
        entries = before.copy()
        results = [apply(operations, entries, now) for operations in runs]
        _write(connection, before, entries)
        connection.execute("COMMIT")
        self._tidying.count(len(keys), sum(map(size_of, runs)))
        return results

    def _connected(self) -> sqlite3.Connection:
        """Return the connection, reopened if the file was deleted or replaced by another."""
        if self._connection is not None and self._file != identity(self._path):
            log.warning("state_file_replaced", path=str(self._path))
            self._disconnect()
        if self._connection is None:
            self._connection = open_database(self._path)
            self._file = identity(self._path)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._steps = None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                # No data is lost: committed transactions are in the write-ahead log.
                log.debug("state_close_failed", path=str(self._path))

    def _tidy(self) -> None:
        """Do one step of tidying, if it is time.

        Failures are ignored: the next run reports them, and the next pass finds the remaining entries.
        """
        if self._connection is None:
            return
        if self._steps is None and self._tidying.due:
            self._steps = self._tidying.steps(self._connection)
        if self._steps is None:
            return
        try:
            if next(self._steps, self) is self:
                self._steps = None
        except sqlite3.Error:
            self._disconnect()


def _read(connection: sqlite3.Connection, keys: list[str]) -> dict[str, Entry]:
    select, width = _select(len(keys))
    rows = connection.execute(select, keys + [None] * (width - len(keys)))
    return {key: Entry(value, expires, written, owner) for key, expires, written, owner, value in rows}


def _write(connection: sqlite3.Connection, before: dict[str, Entry], after: dict[str, Entry]) -> None:
    removed = [(key,) for key in before if key not in after]
    if removed:
        connection.executemany("DELETE FROM entries WHERE key = ?", removed)
    put = [
        (key, entry.expires, entry.written, entry.owner, entry.value)
        for key, entry in after.items()
        if entry is not before.get(key)
    ]
    if put:
        connection.executemany(_INSERT, put)


def _select(keys: int) -> tuple[str, int]:
    """Return the statement that reads ``keys`` entries, and its width: a power of two, which limits the variants."""
    width = 1 << (keys - 1).bit_length()
    return _select_of(width), width


@cache
def _select_of(width: int) -> str:
    marks = ", ".join("?" * width)
    return f"SELECT key, expires, written, owner, {VALUE} FROM entries WHERE key IN ({marks})"  # noqa: S608 - only marks


def _deliver(batch: Sequence[_SqliteRun], outcome: list[list[bytes | None]] | StateUnavailable) -> None:
    for number, run in enumerate(batch):
        if run.result.done():
            continue
        if isinstance(outcome, StateUnavailable):
            run.result.set_exception(outcome)
        else:
            run.result.set_result(outcome[number])
