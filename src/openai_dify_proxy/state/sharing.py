"""Who uses the SQLite file: one process that has it for itself, or any number of processes that share it.

Every process that has the state open locks a file beside it. The first one locks it exclusively, if it wants to, and
may then answer from memory. The next one finds that out, writes a mark into the file, and waits: the first process
looks for the mark, writes what it has in memory, and shares the lock. The kernel releases the locks of a process that
dies.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from openai_dify_proxy.state.sqlite_file import LOCK_SECONDS, identity
from openai_dify_proxy.state.store import StateUnavailable

WATCH_SECONDS = 0.1
"""How often the process that has the file for itself looks for others."""

REGAIN_SECONDS = 1.0
"""How often a process tries to have the file for itself again."""

POLL_SECONDS = 0.01

SUFFIX = ".exclusive"

_WANTED, _UNWANTED = b"\1", b"\0"


class Sharing:
    """The lock of this process on the state at ``path``. Windows has no such locks: there all processes share."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + SUFFIX)
        self._file: int | None = None
        self.exclusive = False

    @property
    def joined(self) -> bool:
        return self._file is not None

    @property
    def file(self) -> int:
        """The descriptor of the open file."""
        assert self._file is not None
        return self._file

    @property
    def wanted(self) -> bool:
        """Whether another process waits for the lock that this one has for itself."""
        return os.pread(self.file, 1, 0) == _WANTED

    @property
    def replaced(self) -> bool:
        """Whether the file was deleted or replaced, so that others do not see the lock of this process."""
        found = os.fstat(self.file)
        return identity(self._path) != (found.st_dev, found.st_ino)

    def join(self, *, exclusive: bool) -> None:
        """Take the lock, for this process alone if that is asked for and no other process has it.

        Raises OSError, and StateUnavailable if another process does not share it in time.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if not exclusive or not self._lock(alone=True):
            self._wait()

    def share(self) -> None:
        """Let other processes use the file. Raises what ``join`` does."""
        os.pwrite(self.file, _UNWANTED, 0)
        self._wait()

    def regain(self) -> bool:
        """Take the shared lock for this process alone if no other process has it.

        A failed attempt may lose the shared lock to a process that then has the file for itself; return whether this
        one had to wait for it. Raises what ``join`` does.
        """
        return not self._lock(alone=True) and self._wait()

    def leave(self) -> None:
        """Release the lock."""
        if self._file is not None:
            os.close(self._file)
        self._file = None
        self.exclusive = False

    def _wait(self) -> bool:
        """Take the shared lock, and return whether that needed several attempts."""
        deadline = time.monotonic() + LOCK_SECONDS
        waited = False
        while not self._lock(alone=False):
            waited = True
            if time.monotonic() > deadline:
                self.leave()
                raise StateUnavailable("another process has the state for itself and does not answer")
            os.pwrite(self.file, _WANTED, 0)
            time.sleep(POLL_SECONDS)
        return waited

    def _lock(self, *, alone: bool) -> bool:
        if sys.platform == "win32":
            return not alone
        import fcntl  # noqa: PLC0415 - does not exist on Windows

        try:
            fcntl.flock(self.file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.exclusive = alone
        if alone:
            os.pwrite(self.file, _UNWANTED, 0)
        return True
