"""State in an SQLite file, which several processes of one machine can share.

A separate thread uses SQLite, so that a slow disk or a lock of another process does not block the event loop. The
thread takes all waiting runs, reads their entries with one statement, applies the operations in memory, and writes the
changes: one transaction with at most four statements for any number of runs. ``BEGIN IMMEDIATE`` locks out other
processes, which makes each operation atomic.
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
    # Without rowids, since most values are small and a second tree would slow reads down. The value is the last column,
    # so that reading the other columns skips the overflow pages of a large value.
    """CREATE TABLE entries (
        key TEXT PRIMARY KEY, expires REAL, written REAL NOT NULL, value BLOB NOT NULL
    ) WITHOUT ROWID""",
)
"""The migrations, in order; ``PRAGMA user_version`` is the number of applied ones."""

LOCK_SECONDS = 0.8
"""How long SQLite waits for another process's lock."""

MAX_BATCH = 256
"""Runs in one transaction."""

GATHER_SECONDS = 0.002
"""How long a run waits for others to share its transaction, if several shared one within this time before."""

SCAN_SECONDS = 3600.0
"""How often the table is scanned for expired entries."""

REMOVE_BATCH = 200
"""How many entries are removed between two batches."""

log = structlog.get_logger(__name__)


class _SqliteBatch(NamedTuple):
    operations: Sequence[Operation]
    result: asyncio.Future[list[bytes | None]]


class SqliteStore:
    """A Store of one event loop. ``~`` in ``path`` is the user's home; missing directories are created.

    The first run opens the file, and after a fault the next run opens it again, so that a repaired file is used.
    ``clock`` returns seconds since the epoch, which processes and restarts share.
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
    """The thread's work: batches of runs, and removal of old entries between them."""

    def __init__(
        self, path: Path, waiting: queue.SimpleQueue[_SqliteBatch | None], max_entries: int, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._waiting = waiting
        self._max_entries = max_entries
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._removable: list[tuple[str, float]] = []
        self._scanned_at = 0.0
        self._writes_until_scan = 0
        self._gather_until = 0.0

    def work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Execute batches until None arrives in the queue; the runs before it are executed."""
        running = True
        while running:
            batch, running = self._next_batch()
            if batch:
                outcome = self._outcome(batch)
                try:
                    loop.call_soon_threadsafe(_deliver, batch, outcome)
                except RuntimeError:
                    break  # the loop is closed, so nothing waits for the outcome
                if len(batch) > 1:
                    self._gather_until = time.monotonic() + GATHER_SECONDS
            self._remove_old()
        self._disconnect()

    def _next_batch(self) -> tuple[list[_SqliteBatch], bool]:
        batch: list[_SqliteBatch] = []
        try:
            run = self._waiting.get(timeout=0 if self._removable else SCAN_SECONDS)
            if run is not None and time.monotonic() < self._gather_until:
                time.sleep(GATHER_SECONDS)
            while run is not None:
                if not run.result.done():  # else its caller has stopped waiting
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
        except Exception as error:  # noqa: BLE001 - the thread must survive bugs, or all callers would wait forever
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
        self._writes_until_scan -= len(keys)
        return results

    def _connected(self) -> sqlite3.Connection:
        """Return the connection, reopened if the file was deleted or replaced by another."""
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
                # No data is lost: committed transactions are in the write-ahead log.
                log.debug("state_close_failed", path=str(self._path))

    def _remove_old(self) -> None:
        """Remove some of the entries that a scan found, or scan the table if it is time.

        Failures are ignored: the next run reports them, and the next scan finds the remaining entries.
        """
        try:
            if self._connection is None:
                self._removable.clear()
            elif self._removable:
                portion, self._removable = self._removable[:REMOVE_BATCH], self._removable[REMOVE_BATCH:]
                # An entry that was written again since the scan stays.
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("DELETE FROM entries WHERE key = ? AND written = ?", portion)
                self._connection.execute("COMMIT")
            elif self._writes_until_scan <= 0 or self._clock() >= self._scanned_at + SCAN_SECONDS:
                self._scan(self._connection)
        except sqlite3.Error:
            self._removable.clear()
            self._disconnect()

    def _scan(self, connection: sqlite3.Connection) -> None:
        """Find the expired entries, and the oldest if there are too many: 5 % below the limit, to delay the next scan.

        A scan reads the whole table, about 10 ms for 100,000 entries. The fewer entries there are, the
        later it comes, but early enough for several processes that fill the table together.
        """
        self._scanned_at = self._clock()
        self._removable = connection.execute(
            "SELECT key, written FROM entries WHERE expires <= ?", (self._scanned_at,)
        ).fetchall()
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        count -= len(self._removable)
        slack = self._max_entries // 20
        if count > self._max_entries:
            self._removable += connection.execute(
                "SELECT key, written FROM entries WHERE expires > ? ORDER BY written LIMIT ?",
                (self._scanned_at, count - self._max_entries + slack),
            ).fetchall()
            count = self._max_entries - slack
        self._writes_until_scan = max(slack, (self._max_entries - count) // 8, 1)


def open_database(path: Path) -> sqlite3.Connection:
    """Return a connection to the file with the current schema. Only this user may read the file and those beside it.

    Raises OSError and sqlite3.Error, and StateUnavailable if a newer version of the proxy has written the file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opening(path):
        if not path.exists():
            # SQLite would read the leftovers of a deleted file, which another process may still have open.
            for leftover in ("-wal", "-shm"):
                path.with_name(path.name + leftover).unlink(missing_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with ExitStack() as on_error:
            connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, cached_statements=256)
            on_error.callback(connection.close)
            connection.execute("PRAGMA journal_mode = WAL")
            _restrict(path)
            # A power failure may lose the last transactions, but never older entries.
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(connection)
            on_error.pop_all()
    return connection


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Let one process at a time open the file. Not needed on Windows, where open files cannot be deleted."""
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


def _restrict(path: Path) -> None:
    """Take the permissions of other users away: an older version, or a copy, may have left some."""
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", ".lock"))):
        try:
            mode = file.stat().st_mode
            if mode & 0o077:
                file.chmod(mode & 0o700)
        except FileNotFoundError:
            continue
        except OSError as error:  # another user owns it
            log.warning("state_readable_by_others", path=str(file), reason=error.strerror)
            return


def migrate(connection: sqlite3.Connection, steps: Sequence[str] = SCHEMA) -> None:
    """Apply the missing migrations of ``steps``, all or none.

    Raises sqlite3.Error, and StateUnavailable if a newer version of the proxy has written the file.
    """
    if _version(connection) == len(steps):
        return
    connection.execute("BEGIN EXCLUSIVE")
    version = _version(connection)  # another process may have migrated it since
    if version > len(steps):
        connection.execute("ROLLBACK")
        raise StateUnavailable(
            f"a newer version of the proxy wrote the state (schema {version}, this version knows {len(steps)})"
        )
    for step in steps[version:]:
        connection.execute(step)
    connection.execute(f"PRAGMA user_version = {len(steps)}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at ``path``, or None."""
    try:
        found = os.stat(path)  # noqa: PTH116 - runs for every batch, and pathlib takes twice as long
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _read(connection: sqlite3.Connection, keys: list[str]) -> dict[str, Entry]:
    select, width = _select(len(keys))
    rows = connection.execute(select, keys + [None] * (width - len(keys)))
    return {key: Entry(value, expires, written) for key, expires, written, value in rows}


def _write(connection: sqlite3.Connection, before: dict[str, Entry], after: dict[str, Entry]) -> None:
    removed = [(key,) for key in before if key not in after]
    if removed:
        connection.executemany("DELETE FROM entries WHERE key = ?", removed)
    put = [
        (key, entry.expires, entry.written, entry.value) for key, entry in after.items() if entry is not before.get(key)
    ]
    if put:
        connection.executemany("INSERT OR REPLACE INTO entries (key, expires, written, value) VALUES (?, ?, ?, ?)", put)


def _select(keys: int) -> tuple[str, int]:
    """Return the statement that reads ``keys`` entries, and its width: a power of two, which limits the variants."""
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
