"""State in the memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from openai_dify_proxy.state.entries import Entry, apply
from openai_dify_proxy.state.store import Operation, StateUnavailable


class MemoryStore:
    """A Store of one event loop. ``clock`` returns seconds."""

    def __init__(self, *, max_entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        # Not a plain dict: finding its first item takes longer, the more items before it were deleted.
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._max_entries = max_entries
        self._clock = clock
        self._closed = False

    async def run(self, *operations: Operation) -> list[bytes | None]:
        if self._closed:
            raise StateUnavailable("the state is closed")
        results = apply(operations, self._entries, self._clock())
        if len(self._entries) > self._max_entries:
            self._drop(len(self._entries) - self._max_entries)
        return results

    def _drop(self, count: int) -> None:
        expiring = (key for key, entry in self._entries.items() if entry.expires is not None)
        for key in list(islice(expiring, count)):
            del self._entries[key]

    async def close(self) -> None:
        self._closed = True
        self._entries.clear()
