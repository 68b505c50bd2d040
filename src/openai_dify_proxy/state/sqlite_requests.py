"""What the event loop and the thread that uses the SQLite file send each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol

from openai_dify_proxy.state.change_log import ChangeLog
from openai_dify_proxy.state.entries import Entry
from openai_dify_proxy.state.store import Operation, StateUnavailable


class SqliteRun(NamedTuple):
    operations: Sequence[Operation]
    size: int
    large: bool
    result: asyncio.Future[list[bytes | None]]


class Load(NamedTuple):
    """Read entries for a run that the event loop executes."""

    keys: Sequence[str]
    run: SqliteRun


class Changes(NamedTuple):
    """Write entries; None removes one. ``number`` counts the batches of changes."""

    number: int
    entries: Mapping[str, Entry | None]


class StateCommand(Enum):
    SCAN = auto()
    """Read all keys."""
    RELEASE = auto()
    """Write all changes, and let other processes use the file."""
    CLOSE = auto()
    """Execute the runs that were put before, write all changes, and end."""


class Listener(Protocol):
    """Receives the results and events of the thread in its event loop."""

    def activate(self, changes: ChangeLog, /) -> None: ...

    def release(self) -> None: ...

    def deactivate(self) -> None: ...

    def forget(self, keys: Sequence[str] | None, /) -> None: ...

    def found(self, keys: Sequence[str] | None, /) -> None: ...

    def loaded(self, loads: Sequence[Load], outcome: Mapping[str, Entry | None] | StateUnavailable, /) -> None: ...

    def executed(
        self, runs: Sequence[SqliteRun], outcome: list[list[bytes | None]] | StateUnavailable | None, /
    ) -> None: ...
