"""The thread that uses the SQLite file of the state.

It takes all waiting runs, reads their entries with one statement, applies the operations in memory, and writes the
changes: one transaction with few statements for any number of runs. ``BEGIN IMMEDIATE`` locks out other
processes, which makes each operation atomic. A large run has a separate transaction, and at most one of them
comes before the waiting small runs.

Changes that the event loop hands over are part of the next transaction. Until it is committed they hide the entries of
the file, from runs and for the event loop, which may have forgotten them.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import structlog

from openai_dify_proxy.state.change_log import ChangeLog
from openai_dify_proxy.state.entries import Entry, apply
from openai_dify_proxy.state.key_filter import scan
from openai_dify_proxy.state.shared_database import Change, Event, SharedDatabase
from openai_dify_proxy.state.sqlite_file import VALUE, write_entries
from openai_dify_proxy.state.sqlite_requests import Changes, Listener, Load, SqliteRun, StateCommand
from openai_dify_proxy.state.sqlite_tidying import SCAN_SECONDS, Tidying
from openai_dify_proxy.state.store import StateUnavailable, is_read, size_of

MAX_BATCH = 256
"""Runs in one transaction."""

MAX_BATCH_BYTES = 1024 * 1024
"""Bytes that one transaction writes, or one run."""

GATHER_SECONDS = 0.002
"""How long a run waits for others to share its transaction, if several shared one within this time before."""

SCAN_PAUSE = 0.02
"""Seconds between two steps of the scan for keys, which take a millisecond of the event loop's time each."""

RETRY_SECONDS = 1.0
"""How long changes wait after they could not be written, if no run tries before."""

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


class SqliteWorker:
    """The thread's work. ``may_hold`` returns whether the file may have a key.

    ``committed`` is the number of the last batch of changes that is committed, and ``failing`` whether the last attempt
    to commit one failed.
    """

    def __init__(
        self,
        path: Path,
        tidying: Tidying,
        may_hold: Callable[[str], bool],
        clock: Callable[[], float],
        *,
        exclusive: bool,
    ) -> None:
        self.waiting: queue.SimpleQueue[SqliteRun | Load | Changes | StateCommand] = queue.SimpleQueue()
        self.committed = 0
        self.failing = False
        self._path = path
        self._tidying = tidying
        self._may_hold = may_hold
        self._clock = clock
        self._exclusive = exclusive
        self._database = SharedDatabase(path, exclusive=exclusive)
        self._loop: asyncio.AbstractEventLoop
        self._listener: Listener
        self._small: deque[SqliteRun] = deque()
        self._large: deque[SqliteRun] = deque()
        self._loads: list[Load] = []
        self._unwritten: dict[str, Entry | None] = {}
        self._merged = 0
        self._retry_at = 0.0
        self._steps: Iterator[None] | None = None
        self._scan: Iterator[list[str]] | None = None
        self._scan_at = 0.0
        self._releasing = False
        self._gather_until = 0.0
        self._running = True
        self._orderly = False

    def work(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        """Work until ``CLOSE`` arrives in the queue."""
        self._listener, self._loop = listener, loop
        self._database.listen(self._on_change)
        while self._running or self._small or self._large:
            self._gather()
            self._attempt(self._database.watch)
            self._read_loads()
            self._execute_batch(self._next_batch())
            self._write_changes()
            self._execute_batch(self._next_large())
            self._release()
            self._advance_scan()
            self._tidy()
        self._end()

    # The queue

    def _gather(self) -> None:
        """Take everything from the queue; wait for something if there is nothing to do."""
        if not self._running:
            return
        try:
            item = self._waiting()
            if isinstance(item, SqliteRun) and time.monotonic() < self._gather_until:
                time.sleep(GATHER_SECONDS)
            while True:
                self._receive(item)
                item = self.waiting.get_nowait()
        except queue.Empty:
            return

    def _waiting(self) -> SqliteRun | Load | Changes | StateCommand:
        if self._steps is not None or self._small or self._large:
            return self.waiting.get_nowait()
        if self._scan is not None:
            return self.waiting.get(timeout=SCAN_PAUSE)
        timeout = min(SCAN_SECONDS, self._database.watch_seconds, RETRY_SECONDS if self._unwritten else SCAN_SECONDS)
        return self.waiting.get(timeout=timeout)

    def _receive(self, item: SqliteRun | Load | Changes | StateCommand) -> None:
        match item:
            case SqliteRun():
                (self._large if item.large else self._small).append(item)
            case Load():
                self._loads.append(item)
            case Changes():
                self._unwritten.update(item.entries)
                self._merged = item.number
            case StateCommand.SCAN:
                connection = self._database.connection
                self._scan = None if connection is None else scan(connection)
                self._tell(self._listener.found, list(self._unwritten))  # they may be written behind the scan
            case StateCommand.RELEASE:
                self._releasing = True
            case StateCommand.CLOSE:
                self._running = False
                self._orderly = True

    def _tell(self, event: Callable[..., None], *values: object) -> None:
        """Call a method of the listener in its event loop."""
        try:
            self._loop.call_soon_threadsafe(event, *values)
        except RuntimeError:  # the loop is closed, so nothing waits for the outcome
            self._running = False
            self._small.clear()
            self._large.clear()

    # Runs

    def _next_batch(self) -> list[SqliteRun]:
        batch: list[SqliteRun] = []
        size = 0
        while self._small and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            run = self._small.popleft()
            if not self._is_abandoned(run):
                batch.append(run)
                size += run.size
        return batch

    def _next_large(self) -> list[SqliteRun]:
        while self._large:
            run = self._large.popleft()
            if not self._is_abandoned(run):
                return [run]
        return []

    def _is_abandoned(self, run: SqliteRun) -> bool:
        """Return whether the caller has stopped waiting. The run is not executed then."""
        if run.result.done():
            self._tell(self._listener.executed, [run], None)
            return True
        return False

    def _execute_batch(self, batch: Sequence[SqliteRun]) -> None:
        if not batch:
            return
        self._tell(self._listener.executed, batch, self._attempt(lambda: self._execute(batch)))
        if len(batch) > 1:
            self._gather_until = time.monotonic() + GATHER_SECONDS

    def _read_loads(self) -> None:
        loads, self._loads = self._loads, []
        if loads:
            keys = list({key for load in loads for key in load.keys})
            self._tell(self._listener.loaded, loads, self._attempt(lambda: self._load(keys)))

    def _attempt(self, work: Callable[[], _T]) -> _T | StateUnavailable:
        try:
            return work()
        except (sqlite3.Error, OSError, StateUnavailable) as error:
            self._database.disconnect()
            return StateUnavailable(f"{self._path}: {error}")
        except Exception as error:  # noqa: BLE001 - the thread must survive bugs, or all callers would wait forever
            self._database.disconnect()
            return StateUnavailable(f"{self._path}: {type(error).__name__}")

    def _load(self, keys: list[str]) -> dict[str, Entry | None]:
        entries = self._read(self._database.connected(), keys)
        return {key: entries.get(key) for key in keys}

    def _execute(self, batch: Sequence[SqliteRun]) -> list[list[bytes | None]]:
        runs = [run.operations for run in batch]
        connection = self._database.connected()
        now = self._clock()
        keys = list({operation.key for operations in runs for operation in operations})
        if all(is_read(operation) for operations in runs for operation in operations):
            entries = self._read(connection, keys)
            return [apply(operations, entries, now) for operations in runs]
        connection.execute("BEGIN IMMEDIATE")
        before = self._read(connection, keys)
        entries = before.copy()
        results = [apply(operations, entries, now) for operations in runs]
        changed = {key: entries.get(key) for key in keys if entries.get(key) is not before.get(key)}
        self._commit(connection, self._unwritten | changed)
        self._tidying.count(len(keys), sum(map(size_of, runs)))
        return results

    def _read(self, connection: sqlite3.Connection, keys: list[str]) -> dict[str, Entry]:
        """Read entries as they are after the changes that are not written yet."""
        select, width = _select(len(keys))
        rows = connection.execute(select, keys + [None] * (width - len(keys)))
        entries = {key: Entry(value, expires, written, owner) for key, expires, written, owner, value in rows}
        for key in keys if self._unwritten else ():
            if key in self._unwritten:
                entry = self._unwritten[key]
                if entry is None:
                    entries.pop(key, None)
                else:
                    entries[key] = entry
        return entries

    # Changes

    def _write_changes(self) -> None:
        """Write the changes that were handed over, if no run of the batch has."""
        if not self._unwritten or (self.failing and time.monotonic() < self._retry_at):
            return
        outcome = self._attempt(self._write_unwritten)
        if isinstance(outcome, StateUnavailable):
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if not self.failing:
                log.warning("state_write_failed", reason=str(outcome), entries=len(self._unwritten))
            self.failing = True

    def _write_unwritten(self) -> None:
        connection = self._database.connected()
        connection.execute("BEGIN IMMEDIATE")
        size = sum(len(entry.value) for entry in self._unwritten.values() if entry is not None)
        count = len(self._unwritten)
        self._commit(connection, self._unwritten)
        self._tidying.count(count, size)

    def _commit(self, connection: sqlite3.Connection, changes: Mapping[str, Entry | None]) -> None:
        """Write the changes, all those that were handed over among them, and commit."""
        write_entries(connection, changes, self._may_hold)
        if self._unwritten:
            self._database.record_batch(connection, self._merged)
        connection.execute("COMMIT")
        self._unwritten = {}
        self.committed = self._merged
        self.failing = False

    # Sharing

    def _on_change(self, change: Change) -> None:
        """Tell the event loop of a change of the file or its lock, and end the passes over the file."""
        listener = self._listener
        match change:
            case ChangeLog():
                self._tell(listener.activate, change)
            case Event.WANTED:
                self._tell(listener.release)
            case Event.LOST:
                self._tell(listener.deactivate)
            case Event.CHANGED:
                self._scan = None
                self._tell(listener.forget, None)
            case Event.DISCONNECTED:
                self._steps = self._scan = None

    def _release(self) -> None:
        """Let other processes use the file, once all changes are written."""
        if self._releasing and not self._unwritten:
            self._releasing = False
            self._attempt(self._database.share)

    # Between runs

    def _advance_scan(self) -> None:
        """Do one step of the scan for keys. After a failure the next connection scans anew."""
        if self._scan is None or time.monotonic() < self._scan_at:
            return
        self._scan_at = time.monotonic() + SCAN_PAUSE
        try:
            keys = next(self._scan, None)
        except sqlite3.Error:
            self._database.disconnect()
            return
        self._tell(self._listener.found, keys)
        if keys is None:
            self._scan = None

    def _tidy(self) -> None:
        """Do one step of tidying, if it is time.

        Failures are ignored: the next run reports them, and the next pass finds the remaining entries.
        """
        connection = self._database.connection
        if connection is None:
            return
        if self._steps is None and self._tidying.due:
            self._steps = self._tidying.steps(connection)
        if self._steps is None:
            return
        try:
            if next(self._steps, self) is self:
                self._steps = None
        except sqlite3.Error:
            self._database.disconnect()
        removed = self._tidying.take_removed()
        if removed and self._exclusive:
            self._tell(self._listener.forget, removed)

    def _end(self) -> None:
        self.failing = False  # try at once
        self._write_changes()
        if self._unwritten:
            log.warning("state_entries_lost", entries=len(self._unwritten))
        # Else the event loop has ended with changes that only the log has.
        self._database.close(clean=self._orderly and not self._unwritten)


def _select(keys: int) -> tuple[str, int]:
    """Return the statement that reads ``keys`` entries, and its width: a power of two, which limits the variants."""
    width = 1 << (keys - 1).bit_length()
    return _select_of(width), width


@cache
def _select_of(width: int) -> str:
    marks = ", ".join("?" * width)
    return f"SELECT key, expires, written, owner, {VALUE} FROM entries WHERE key IN ({marks})"  # noqa: S608 - only marks
