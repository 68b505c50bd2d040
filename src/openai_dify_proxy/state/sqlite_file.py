"""The SQLite file of the state: its schema, its migrations, its permissions, and how entries are written to it."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import structlog

from openai_dify_proxy.state.entries import Entry
from openai_dify_proxy.state.store import UNKNOWN, StateUnavailable

SCHEMA = (
    # Without rowids, since most values are small and a second tree would slow reads down.
    """CREATE TABLE entries (
        key TEXT PRIMARY KEY, expires REAL, written REAL NOT NULL, value BLOB NOT NULL
    ) WITHOUT ROWID""",
    # The value is the last column, so that reading the other columns skips the overflow pages of a large value. Only
    # entries of the first version have theirs in ``value``; in all others it is empty.
    f"ALTER TABLE entries ADD COLUMN owner TEXT NOT NULL DEFAULT '{UNKNOWN}'",
    "ALTER TABLE entries ADD COLUMN data BLOB",
)
"""The migrations, in order; ``PRAGMA user_version`` is the number of applied ones."""

VALUE = "coalesce(data, value)"

SIZE = "length(key) + length(value) + coalesce(length(data), 0)"
"""Bytes of key and value. SQLite reads the length of a column without the column."""

CHECKPOINT_PAGES = 4000
"""Pages of the write-ahead log (16 MB) that are copied into the file at once: of the copies of one page, the last."""

MAX_ROWS = 128
"""Rows that one statement writes."""

LOCK_SECONDS = 0.8
"""How long SQLite waits for another process's lock."""

log = structlog.get_logger(__name__)


def open_database(path: Path) -> sqlite3.Connection:
    """Return a connection to the file with the current schema. Only this user may read the file and its journal.

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
            # A statement with many rows has a journal of its own: a file, opened and removed in each transaction.
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
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
    """Remove the permissions of other users, which an older version or a copy may have left."""
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", ".lock", ".exclusive"))):
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


def identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at ``path``, or None."""
    try:
        found = os.stat(path)  # noqa: PTH116 - runs for every batch, and pathlib takes twice as long
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def disk_size(path: Path) -> int:
    """Return the bytes of the file and of its write-ahead log."""
    size = 0
    for file in (path, path.with_name(path.name + "-wal")):
        with suppress(OSError):
            size += file.stat().st_size
    return size


def write_entries(
    connection: sqlite3.Connection, entries: Mapping[str, Entry | None], may_hold: Callable[[str], bool] | None = None
) -> None:
    """Write entries; None removes one, unless ``may_hold`` says that the file does not have it.

    Sorted rows share pages, which takes a quarter less work.
    """
    removed: list[object] = []
    put: list[object] = []
    for key in sorted(entries):
        entry = entries[key]
        if entry is not None:
            put += (key, entry.expires, entry.written, entry.owner, entry.value)
        elif may_hold is None or may_hold(key):
            removed.append(key)
    _write_rows(connection, _delete_of, removed, 1)
    _write_rows(connection, _insert_of, put, 5)


def _write_rows(
    connection: sqlite3.Connection, statement_of: Callable[[int], str], values: Sequence[object], columns: int
) -> None:
    """Write rows with few statements.

    Python gives up its lock for each step of a statement, and the event loop keeps it for milliseconds.
    """
    begin = 0
    while begin < len(values):
        rows = (len(values) - begin) // columns
        count = min(MAX_ROWS, 1 << rows.bit_length() - 1)  # a power of two, which limits the statements
        end = begin + count * columns
        connection.execute(statement_of(count), values[begin:end])
        begin = end


@cache
def _insert_of(rows: int) -> str:
    marks = ", ".join(("(?, ?, ?, x'', ?, ?)",) * rows)
    return f"INSERT OR REPLACE INTO entries (key, expires, written, value, owner, data) VALUES {marks}"  # noqa: S608 - only marks


@cache
def _delete_of(rows: int) -> str:
    return f"DELETE FROM entries WHERE key IN ({', '.join('?' * rows)})"  # noqa: S608 - only marks
