"""The connection to the SQLite file, and the lock that says who uses the file."""

from __future__ import annotations

import math
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

import structlog

from openai_dify_proxy.state.change_log import ChangeLog, clear_changes, is_empty, read_changes
from openai_dify_proxy.state.sharing import REGAIN_SECONDS, WATCH_SECONDS, Sharing
from openai_dify_proxy.state.sqlite_file import identity, open_database, write_entries

log = structlog.get_logger(__name__)


class Event(Enum):
    WANTED = auto()
    """Another process waits until this one has written its changes and shares the file."""
    LOST = auto()
    """This process does not have the file for itself any more, since its lock was deleted."""
    CHANGED = auto()
    """Something else may have changed entries."""
    DISCONNECTED = auto()
    """The connection ends."""


Change = ChangeLog | Event
"""An event, or the log of changes: this process has the file for itself from now on."""


class SharedDatabase:
    """A connection that is opened when it is needed. Used by one thread.

    With ``exclusive``, the process has the file for itself whenever no other process uses it, and the listener is told.
    """

    def __init__(self, path: Path, *, exclusive: bool) -> None:
        self.connection: sqlite3.Connection | None = None
        self._path = path
        self._exclusive = exclusive
        self._sharing = Sharing(path)
        self._file: tuple[int, int] | None = None
        self._version = 0
        self._replayed = False
        self._log: ChangeLog | None = None
        self._wanted = False
        self._watch_at = 0.0
        self._listener: Callable[[Change], None]

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call ``listener`` with each change."""
        self._listener = listener

    # The connection

    def connected(self) -> sqlite3.Connection:
        """Return the connection, reopened if the file was deleted or replaced by another.

        Raises OSError, sqlite3.Error and StateUnavailable.
        """
        recorded: int | None = None
        if self.connection is not None and self._file != identity(self._path):
            log.warning("state_file_replaced", path=str(self._path))
            recorded = _committed_batch(self.connection)
            self.disconnect()
        if self.connection is None:
            if self._sharing.joined and self._sharing.replaced:
                self._leave()
            if not self._sharing.joined:
                self._sharing.join(exclusive=self._exclusive)
                self._replayed = False
            created = not self._path.exists()
            self.connection = open_database(self._path)
            self._file = identity(self._path)
            if self._log is None:
                if created:
                    self._clear()  # of the changes of a deleted file
            elif recorded is not None:
                self._set_batch(self.connection, recorded)  # the log continues with the file that replaced another
            self._replay(self.connection)
            self._note_changes(self.connection)
            if self._sharing.exclusive and self._log is None and not self._wanted:
                self._begin_alone(self.connection)
        return self.connection

    def disconnect(self) -> None:
        """Close the connection, for example after an error. The lock stays."""
        connection, self.connection = self.connection, None
        self._listener(Event.DISCONNECTED)
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                # No data is lost: committed transactions are in the write-ahead log.
                log.debug("state_close_failed", path=str(self._path))

    def close(self, *, clean: bool) -> None:
        """Close the connection and release the lock. ``clean`` says that all changes are committed."""
        if clean and self._log is not None:
            with suppress(OSError):
                self._clear()
        self.disconnect()
        self._sharing.leave()

    def record_batch(self, connection: sqlite3.Connection, number: int) -> None:
        """Record in a transaction that it writes the batch ``number`` of changes."""
        if self._sharing.exclusive:
            self._set_batch(connection, number)

    def _set_batch(self, connection: sqlite3.Connection, number: int) -> None:
        if _committed_batch(connection) != number:
            connection.execute(f"PRAGMA application_id = {number}")

    def _replay(self, connection: sqlite3.Connection) -> bool:
        """Write the changes that another process logged before it crashed. Return whether there were any.

        Necessary once per lock.
        """
        if self._replayed or sys.platform == "win32":
            return False
        file = self._sharing.file
        found = not is_empty(file)
        if found:
            connection.execute("BEGIN IMMEDIATE")  # other processes may replay them too
            number, changes = read_changes(file, _committed_batch(connection))
            write_entries(connection, changes)
            self._set_batch(connection, number)
            connection.execute("COMMIT")
            self._clear()
        self._replayed = True
        return found

    def _clear(self) -> None:
        if sys.platform != "win32":
            clear_changes(self._sharing.file)

    def _note_changes(self, connection: sqlite3.Connection) -> None:
        """Compare later with the present version of the file."""
        self._version = _data_version(connection)
        if self._exclusive:
            self._listener(Event.CHANGED)

    # The lock

    @property
    def watch_seconds(self) -> float:
        """How often ``watch`` is necessary."""
        if not self._exclusive or self.connection is None:
            return math.inf
        return WATCH_SECONDS if self._sharing.exclusive else REGAIN_SECONDS

    def watch(self) -> None:
        """Look for other processes if it is time: for those that wait for the file, and for their changes.

        Raises what ``connected`` does.
        """
        if not self._exclusive or self.connection is None or time.monotonic() < self._watch_at:
            return
        connection = self.connected()
        if self._sharing.replaced:
            self.disconnect()
            self._leave()
        elif self._sharing.exclusive:
            if not self._wanted and self._sharing.wanted:
                self._wanted = True
                self._log = None
                self._listener(Event.WANTED)
            self._compare(connection)
            if self._log is None and not self._wanted:
                self._begin_alone(connection)
        else:
            self._regain(connection)
        self._watch_at = time.monotonic() + self.watch_seconds

    def share(self) -> None:
        """Let other processes use the file. All changes must be committed. Raises what ``connected`` does."""
        self._wanted = False
        if not self._sharing.exclusive:
            return
        self._clear()
        self._sharing.share()
        self._watch_at = time.monotonic() + self.watch_seconds

    def _regain(self, connection: sqlite3.Connection) -> None:
        waited = self._sharing.regain()
        if waited or self._sharing.exclusive:  # a process may have had the file for itself, and crashed
            self._replayed = False
            if self._replay(connection):
                self._note_changes(connection)  # those of this connection do not count as changes
        if self._sharing.exclusive:
            self._compare(connection)
            self._begin_alone(connection)

    def _compare(self, connection: sqlite3.Connection) -> None:
        if self._version != _data_version(connection):
            self._note_changes(connection)

    def _begin_alone(self, connection: sqlite3.Connection) -> None:
        try:
            self._set_batch(connection, 0)
        except sqlite3.OperationalError:
            return  # the disk is full; ``watch`` tries again
        self._log = ChangeLog(self._sharing.file)
        self._listener(self._log)

    def _leave(self) -> None:
        if self._log is not None:
            self._log.end()  # before its file is closed
        self._sharing.leave()
        if self._log is not None:
            self._log = None
            self._listener(Event.LOST)


def _data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection writes to the file."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _committed_batch(connection: sqlite3.Connection) -> int:
    """Return the number of the last batch of changes that the file has."""
    (number,) = connection.execute("PRAGMA application_id").fetchone()
    return int(number)
