"""State in an SQLite file, which several processes of one machine may share.

One thread of its own talks to SQLite, so that a disk that is slow, or a lock that another process holds, never holds
the event loop up. It takes all runs that wait, reads the entries that they name with one statement, lets the
operations have them in memory, and writes what has changed: one transaction and at most four statements, however many
runs there are. ``BEGIN IMMEDIATE`` keeps other processes out meanwhile, which makes each operation atomic.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import structlog

from openai_dify_proxy.state.entries import Entry, apply
from openai_dify_proxy.state.store import Get, Operation, StateUnavailable

SCHEMA = (
    # Values are small, and are found faster without a second tree. The value comes last: to read the rest of a row
    # with a big one, the pages that it flows over to are left alone.
    """CREATE TABLE entries (
        key TEXT PRIMARY KEY, expires REAL, written REAL NOT NULL, value BLOB NOT NULL
    ) WITHOUT ROWID""",
)
"""What makes each version of the schema from the one before; ``PRAGMA user_version`` counts those that were made."""

LOCK_SECONDS = 0.8
"""How long another process's lock is waited for."""

MAX_BATCH = 256
"""Runs in one transaction."""

GATHER_SECONDS = 0.002
"""How long a run waits for others to share its transaction, if several shared the last one, no longer ago than that."""

TIDY_SECONDS = 3600.0
"""How often expired entries are looked for."""

TIDY_BATCH = 200
"""Entries that are removed between two batches."""

log = structlog.get_logger(__name__)


class _SqliteBatch(NamedTuple):
    operations: Sequence[Operation]
    result: asyncio.Future[list[bytes | None]]


class SqliteStore:
    """A Store of one event loop. ``~`` in ``path`` is the user's home, and what is missing of it is made.

    The file is opened by the first run, and anew after each fault, so that one that is repaired is taken up.
    ``clock`` gives the seconds since 1970, which processes and restarts have in common.
    """

    def __init__(self, path: str | Path, *, max_entries: int, clock: Callable[[], float] = time.time) -> None:
        self._waiting: queue.SimpleQueue[_SqliteBatch | None] = queue.SimpleQueue()
        self._worker = _Worker(Path(path).expanduser().absolute(), self._waiting, max_entries, clock)
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
        self._waiting.put(_SqliteBatch(operations, result))
        return await result

    async def close(self) -> None:
        self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)


class _Worker:
    """What the thread does: batches of runs, and tidying in between."""

    def __init__(
        self, path: Path, waiting: queue.SimpleQueue[_SqliteBatch | None], max_entries: int, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._waiting = waiting
        self._max_entries = max_entries
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._doomed: list[tuple[str, float]] = []
        self._tidied = 0.0
        self._writes_left = 0
        self._gathering_until = 0.0

    def work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serves until None comes, and then what came before it."""
        going_on = True
        while going_on:
            batch, going_on = self._next_batch()
            if batch:
                outcome = self._outcome(batch)
                try:
                    loop.call_soon_threadsafe(_deliver, batch, outcome)
                except RuntimeError:
                    break  # the loop is closed, and with it everybody who could wait
                if len(batch) > 1:
                    self._gathering_until = time.monotonic() + GATHER_SECONDS
            self._tidy()
        self._disconnect()

    def _next_batch(self) -> tuple[list[_SqliteBatch], bool]:
        batch: list[_SqliteBatch] = []
        try:
            run = self._waiting.get(timeout=0 if self._doomed else TIDY_SECONDS)
            if run is not None and time.monotonic() < self._gathering_until:
                time.sleep(GATHER_SECONDS)
            while run is not None:
                if not run.result.done():  # its caller has stopped waiting
                    batch.append(run)
                if len(batch) == MAX_BATCH:
                    return batch, True
                run = self._waiting.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _outcome(self, batch: Sequence[_SqliteBatch]) -> list[list[bytes | None]] | StateUnavailable:
        try:
            return self._execute([run.operations for run in batch])
        except (sqlite3.Error, OSError, StateUnavailable) as error:
            self._disconnect()
            return StateUnavailable(f"{self._path}: {error}")
        except Exception as error:  # noqa: BLE001 - of a mistake too the thread must not die: all would wait for ever
            self._disconnect()
            return StateUnavailable(f"{self._path}: {type(error).__name__}")

    def _execute(self, runs: Sequence[Sequence[Operation]]) -> list[list[bytes | None]]:
        connection = self._connected()
        now = self._clock()
        keys = list({operation.key for operations in runs for operation in operations})
        if all(isinstance(operation, Get) for operations in runs for operation in operations):
            entries = _read(connection, keys)
            return [apply(operations, entries, now) for operations in runs]
        connection.execute("BEGIN IMMEDIATE")
        before = _read(connection, keys)
        entries = before.copy()
        results = [apply(operations, entries, now) for operations in runs]
        _write(connection, before, entries)
        connection.execute("COMMIT")
        self._writes_left -= len(keys)
        return results

    def _connected(self) -> sqlite3.Connection:
        """The connection; a new one if another file, or none, has come into the place of the one that was opened."""
        if self._connection is not None and self._file != _identity(self._path):
            log.warning("state_file_replaced", path=str(self._path))
            self._disconnect()
        if self._connection is None:
            self._connection = open_database(self._path)
            self._file = _identity(self._path)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                # Nothing is lost by it: what was committed is in the write-ahead log.
                log.debug("state_close_failed", path=str(self._path))

    def _tidy(self) -> None:
        """Removes some of what is to go, and looks from time to time for what that is.

        Failures are ignored: the next run reports them, and the next scan finds what is left.
        """
        try:
            if self._connection is None:
                self._doomed.clear()
            elif self._doomed:
                portion, self._doomed = self._doomed[:TIDY_BATCH], self._doomed[TIDY_BATCH:]
                # One that has been written again meanwhile stays.
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("DELETE FROM entries WHERE key = ? AND written = ?", portion)
                self._connection.execute("COMMIT")
            elif self._writes_left <= 0 or self._clock() >= self._tidied + TIDY_SECONDS:
                self._doom(self._connection)
        except sqlite3.Error:
            self._doomed.clear()
            self._disconnect()

    def _doom(self, connection: sqlite3.Connection) -> None:
        """Expired entries, and the oldest if there are too many: a twentieth more, so that it is not asked soon again.

        To ask reads the whole table, some ten milliseconds for 100,000 entries. The fewer there are, the later the
        next time; other processes write too, so it is not put off until these writes alone could fill it.
        """
        self._tidied = self._clock()
        self._doomed = connection.execute(
            "SELECT key, written FROM entries WHERE expires <= ?", (self._tidied,)
        ).fetchall()
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        count -= len(self._doomed)
        slack = self._max_entries // 20
        if count > self._max_entries:
            self._doomed += connection.execute(
                "SELECT key, written FROM entries WHERE expires > ? ORDER BY written LIMIT ?",
                (self._tidied, count - self._max_entries + slack),
            ).fetchall()
            count = self._max_entries - slack
        self._writes_left = max(slack, (self._max_entries - count) // 8, 1)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the file, made for this user alone if there is none, with the schema of today.

    Raises OSError and sqlite3.Error, and StateUnavailable if a newer version of the proxy has written the file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opening(path):
        if not path.exists():
            # SQLite trusts what it finds there, and a process may still have those of a file that was deleted.
            for leftover in ("-wal", "-shm"):
                path.with_name(path.name + leftover).unlink(missing_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with ExitStack() as on_error:
            connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, cached_statements=256)
            on_error.callback(connection.close)
            connection.execute("PRAGMA journal_mode = WAL")
            # A power failure may lose the last moments, never older entries.
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(connection)
            on_error.pop_all()
    return connection


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """One process at a time opens the file. Windows deletes none that is open, which is what this is for."""
    if sys.platform == "win32":
        yield
    else:
        import fcntl  # noqa: PLC0415 - does not exist on Windows

        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def migrate(connection: sqlite3.Connection, steps: Sequence[str] = SCHEMA) -> None:
    """Brings the schema up to date by those of ``steps`` that are still to be made, all or none.

    Raises sqlite3.Error, and StateUnavailable if a newer version of the proxy has written the file.
    """
    if _version(connection) == len(steps):
        return
    connection.execute("BEGIN EXCLUSIVE")
    version = _version(connection)  # once more: another process may have been at it
    if version > len(steps):
        connection.execute("ROLLBACK")
        raise StateUnavailable(f"a newer version of the proxy wrote the state: {version}, here it is {len(steps)}")
    for step in steps[version:]:
        connection.execute(step)
    connection.execute(f"PRAGMA user_version = {len(steps)}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - for every batch, and pathlib's takes twice as long
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _read(connection: sqlite3.Connection, keys: list[str]) -> dict[str, Entry]:
    select, width = _select(len(keys))
    rows = connection.execute(select, keys + [None] * (width - len(keys)))
    return {key: Entry(value, expires, written) for key, expires, written, value in rows}


def _write(connection: sqlite3.Connection, before: dict[str, Entry], after: dict[str, Entry]) -> None:
    gone = [(key,) for key in before if key not in after]
    if gone:
        connection.executemany("DELETE FROM entries WHERE key = ?", gone)
    put = [
        (key, entry.expires, entry.written, entry.value) for key, entry in after.items() if entry is not before.get(key)
    ]
    if put:
        connection.executemany("INSERT OR REPLACE INTO entries (key, expires, written, value) VALUES (?, ?, ?, ?)", put)


def _select(keys: int) -> tuple[str, int]:
    """The statement that reads that many entries, and the width that it has: a power of two, so that there are few."""
    width = 1 << (keys - 1).bit_length()
    return _select_of(width), width


@cache
def _select_of(width: int) -> str:
    marks = ", ".join("?" * width)
    return f"SELECT key, expires, written, value FROM entries WHERE key IN ({marks})"  # noqa: S608 - only marks


def _deliver(batch: Sequence[_SqliteBatch], outcome: list[list[bytes | None]] | StateUnavailable) -> None:
    for number, run in enumerate(batch):
        if run.result.done():
            continue
        if isinstance(outcome, StateUnavailable):
            run.result.set_exception(outcome)
        else:
            run.result.set_result(outcome[number])
