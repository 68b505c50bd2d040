"""State in an SQLite file, which several processes of one machine can share.

A separate thread uses the file (``sqlite_worker``), so that a slow disk or a lock of another process does not block the
event loop. How a run is answered depends on who else uses the file (``sharing``):

- A process that shares the file with others sends each run to the thread, which executes it in a transaction.
- A server that has the file for itself answers from memory (``overlay``). It logs the changes within ``LOG_SECONDS``
  (``change_log``), and hands them over to the thread after ``WRITE_SECONDS``. A filter over the keys of the file
  (``key_filter``) says that an entry does not exist, so the thread is necessary only for entries that were not used
  lately: it reads them, and the operations are applied here.

A crash of the process loses deferred writes of the last ``DEFER_SECONDS``, so that the next turn of such a conversation
starts a new one; earlier ones only if the log is full because the file cannot be written. It loses no take: takes are
logged before their results are returned, so no entry is taken twice. Nothing is lost at an orderly end, and before the
file is shared again.

In these cases a run goes through the thread although the process has the file for itself: it writes something that is
not deferred; it is large; an earlier run on one of its keys goes through the thread; too much waits to be written; or
the last attempt to write failed. The transaction of such a run writes all earlier changes too, so while the disk is
full all runs that write fail, and nothing accumulates, while those that read still return what was acknowledged.

The writes of programs that use the file without a lock (``sqlite3``) are noticed within ``WATCH_SECONDS``, by ``PRAGMA
data_version``; everything that was read is then forgotten.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from openai_dify_proxy.state.change_log import ChangeLog
from openai_dify_proxy.state.deadlines import Deadlines
from openai_dify_proxy.state.entries import Entry
from openai_dify_proxy.state.eviction import MAX_BYTES
from openai_dify_proxy.state.key_filter import KeyFilter
from openai_dify_proxy.state.overlay import Overlay
from openai_dify_proxy.state.sqlite_file import disk_size
from openai_dify_proxy.state.sqlite_requests import Changes, Load, SqliteRun, StateCommand
from openai_dify_proxy.state.sqlite_tidying import Tidying
from openai_dify_proxy.state.sqlite_worker import SqliteWorker
from openai_dify_proxy.state.store import (
    LARGE_PATIENCE,
    STATE_TIMEOUT,
    Operation,
    StateUnavailable,
    is_large,
    size_of,
)

LOG_SECONDS = 0.03
"""How long a change waits for others to be logged with it."""

WRITE_SECONDS = 1.0
"""How long a change waits for others to be written to the file with it."""

MAX_BATCH_WEIGHT = 2 * 1024 * 1024
"""Changes that weigh more are handed over at once."""

MAX_BACKLOG = 16 * 1024 * 1024
"""The largest weight of changes that wait to be written."""

ENTRY_BYTES = 128
"""Bytes in the file that an entry takes at least."""

MAX_LOADED = 256
"""A run that needs more entries of the file is executed by the thread."""


class SqliteStore:
    """A Store of one event loop. ``~`` in ``path`` is the user's home; missing directories are created.

    The first run opens the file, and after a fault the next run opens it again, so that a repaired file is used.
    ``timeout`` limits one run, in seconds. ``clock`` returns seconds since the epoch, which processes and restarts
    share. ``exclusive`` is for the only process of a server: it answers from memory while no other process uses the
    file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_entries: int,
        max_bytes: int = MAX_BYTES,
        timeout: float = STATE_TIMEOUT,
        clock: Callable[[], float] = time.time,
        exclusive: bool = False,
    ) -> None:
        self._filter = KeyFilter(max_entries)
        self._overlay = Overlay(self._filter.may_hold)
        tidying = Tidying(max_entries, max_bytes, clock)
        may_hold = self._filter.may_hold
        self._path = Path(path).expanduser().absolute()
        self._worker = SqliteWorker(self._path, tidying, may_hold, clock, exclusive=exclusive)
        self._exclusive = exclusive
        self._clock = clock
        self._timeout = timeout
        self._deadlines = Deadlines()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._log: ChangeLog | None = None
        """Set while the overlay answers."""
        self._log_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._handed_over = 0
        self._backlog: deque[tuple[int, int]] = deque()
        self._backlog_weight = 0
        self._loading: set[asyncio.Future[list[bytes | None]]] = set()

    def run_now(self, *operations: Operation) -> list[bytes | None] | None:
        return None if self._closed else self._answer(operations)

    def _answer(self, operations: Sequence[Operation]) -> list[bytes | None] | None:
        if self._log is None or self._worker.failing:
            return None
        if self._backlog_weight > MAX_BACKLOG and self._is_backlogged():
            return None
        overlay = self._overlay
        results = overlay.run(operations, self._clock(), self._log)
        if overlay.weight > MAX_BATCH_WEIGHT or (self._log.is_filling and self._worker.committed == self._handed_over):
            self._hand_over()
        elif self._write_timer is None and overlay.weight:
            assert self._loop is not None
            self._write_timer = self._loop.call_later(WRITE_SECONDS, self._hand_over)
        if self._log_timer is None and overlay.unlogged:
            assert self._loop is not None
            self._log_timer = self._loop.call_later(LOG_SECONDS, self._log_changes)
        return results

    async def run(self, *operations: Operation) -> list[bytes | None]:
        if self._closed:
            raise StateUnavailable("the state is closed")
        results = self._answer(operations)
        if results is not None:
            return results
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._loop = loop
            self._thread = threading.Thread(target=self._worker.work, args=(self, loop), name="state", daemon=True)
            self._thread.start()
        run = SqliteRun(operations, size_of(operations), is_large(operations), loop.create_future())
        self._deadlines.watch(run.result, self._timeout * LARGE_PATIENCE if run.large else self._timeout)
        if not self._load(run):
            self._execute(run)
        return await run.result

    async def close(self) -> None:
        self._closed = True
        if self._loading:
            await asyncio.wait(self._loading)
        self._hand_over()
        self._log = None
        if self._thread is not None:
            self._worker.waiting.put(StateCommand.CLOSE)
            await asyncio.to_thread(self._thread.join)
        self._deadlines.close()

    # Work for the thread

    def _load(self, run: SqliteRun) -> bool:
        """Read the entries that a run needs, to execute it here. Return False if the thread has to execute it."""
        if self._log is None or self._worker.failing or run.large:
            return False
        keys = self._overlay.unknown(run.operations)
        if not 0 < len(keys) <= MAX_LOADED:
            return False
        self._loading.add(run.result)
        run.result.add_done_callback(self._loading.discard)
        self._worker.waiting.put(Load(keys, run))
        return True

    def _execute(self, run: SqliteRun) -> None:
        if self._exclusive:
            self._hand_over()
            self._filter.add(operation.key for operation in run.operations)
            self._overlay.hold(run.operations)
        self._worker.waiting.put(run)

    def _log_changes(self) -> None:
        self._log_timer = None
        if self._log is not None and not self._overlay.log_changes(self._log):
            self._hand_over()

    def _hand_over(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        weight = self._overlay.weight
        if not weight:
            return
        if self._log is not None:
            self._overlay.log_changes(self._log)
        changes = self._overlay.take_changes()
        self._filter.add(key for key, entry in changes.items() if entry is not None)
        self._handed_over += 1
        self._backlog.append((self._handed_over, weight))
        self._backlog_weight += weight
        self._worker.waiting.put(Changes(self._handed_over, changes))
        if self._log is not None:
            self._begin_batch(self._log)
            self._scan_if_due()

    def _begin_batch(self, log: ChangeLog) -> None:
        log.begin_batch(self._handed_over + 1, self._worker.committed)

    def _is_backlogged(self) -> bool:
        """Return whether too much waits to be written."""
        backlog, committed = self._backlog, self._worker.committed
        while backlog and backlog[0][0] <= committed:
            self._backlog_weight -= backlog.popleft()[1]
        return self._backlog_weight > MAX_BACKLOG

    def _scan_if_due(self) -> None:
        if self._filter.due:
            self._filter.begin(expected=disk_size(self._path) // ENTRY_BYTES)
            self._filter.add(self._overlay.held)  # they may be written behind the scan
            self._worker.waiting.put(StateCommand.SCAN)

    # Events of the thread, in the event loop

    def activate(self, log: ChangeLog) -> None:
        """Answer from memory from now on: this process has the file for itself."""
        if not self._closed:
            self._log = log
            self._begin_batch(log)
            self._scan_if_due()

    def release(self) -> None:
        """Answer from memory no longer: another process wants to use the file."""
        self._hand_over()
        self._log = None
        self._worker.waiting.put(StateCommand.RELEASE)

    def deactivate(self) -> None:
        """Answer from memory no longer: other processes may use the file already."""
        self._log = None
        self._hand_over()

    def forget(self, keys: Sequence[str] | None) -> None:
        """Forget entries that the thread removed; None for all, since something else may have changed them."""
        if keys is not None:
            self._overlay.forget(keys)
            return
        self._overlay.forget_all()
        self._filter.invalidate()
        if self._log is not None:
            self._scan_if_due()

    def found(self, keys: Sequence[str] | None) -> None:
        """Add the next keys of a scan; None at its end."""
        if not self._filter.scanning:
            return
        if keys is None:
            self._filter.finish()
        else:
            self._filter.add(keys)

    def loaded(self, loads: Sequence[Load], outcome: Mapping[str, Entry | None] | StateUnavailable) -> None:
        """Execute runs whose entries were read."""
        if not isinstance(outcome, StateUnavailable) and self._log is not None:
            self._overlay.learn(outcome)
        for _, run in loads:
            if run.result.done():  # its caller has stopped waiting
                continue
            if isinstance(outcome, StateUnavailable):
                run.result.set_exception(outcome)
            elif (results := self._answer(run.operations)) is not None:
                run.result.set_result(results)
            else:
                self._execute(run)

    def executed(self, runs: Sequence[SqliteRun], outcome: list[list[bytes | None]] | StateUnavailable | None) -> None:
        """Return the results of runs; None for runs whose callers have stopped waiting."""
        for number, run in enumerate(runs):
            if self._exclusive:
                self._overlay.unhold(run.operations)
            if run.result.done() or outcome is None:
                continue
            if isinstance(outcome, StateUnavailable):
                run.result.set_exception(outcome)
            else:
                run.result.set_result(outcome[number])
