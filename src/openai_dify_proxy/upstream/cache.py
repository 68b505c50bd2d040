"""A cache for descriptions of apps and models."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

from openai_dify_proxy.eager import in_task
from openai_dify_proxy.errors import ProxyError, UpstreamMisconfigured

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Loaded(NamedTuple, Generic[_V]):
    """A value, and the seconds for which it is fresh."""

    value: _V
    fresh_seconds: float


class _CacheEntry(NamedTuple, Generic[_V]):
    value: _V
    fresh_until: float


def is_outage(error: ProxyError) -> bool:
    """Return whether the upstream failed, rather than rejecting the request or the server's credentials."""
    return error.status >= 500 and not isinstance(error, UpstreamMisconfigured)


class RefreshingCache(Generic[_K, _V]):
    """A cache that loads values on demand, and serves stale ones while they cannot be loaded.

    Concurrent misses of a key share one load, which the cancellation of a caller does not cancel. ``now`` is a clock in
    seconds. Beyond ``max_entries``, the values that were loaded longest ago are dropped.
    """

    def __init__(self, now: Callable[[], float], *, max_entries: int) -> None:
        self._now = now
        self._max_entries = max_entries
        self._entries: OrderedDict[_K, _CacheEntry[_V]] = OrderedDict()
        self._loads: dict[_K, asyncio.Task[Loaded[_V]]] = {}

    def fresh(self, key: _K) -> _V | None:
        """Return the value unless it is missing or stale."""
        entry = self._entries.get(key)
        return entry.value if entry is not None and entry.fresh_until > self._now() else None

    def was_fresh(self, key: _K, seconds: float) -> bool:
        """Return whether the value is fresh, or became stale less than ``seconds`` ago."""
        entry = self._entries.get(key)
        return entry is not None and entry.fresh_until + seconds > self._now()

    def drop(self, key: _K) -> None:
        """Forget the value."""
        self._entries.pop(key, None)

    async def get(
        self, key: _K, load: Callable[[], Coroutine[Any, Any, Loaded[_V]]], *, timeout: float | None = None
    ) -> _V:
        """Return the fresh value, loading it if necessary.

        During an outage, and after ``timeout`` seconds (the load continues), return the stale value. If there is none,
        raise the error of ``load``, or TimeoutError.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.fresh_until > self._now():
            return entry.value
        await in_task()
        try:
            async with asyncio.timeout(timeout):
                return (await asyncio.shield(self._load(key, load))).value
        except (TimeoutError, ProxyError) as error:
            if entry is None or (isinstance(error, ProxyError) and not is_outage(error)):
                raise
            return entry.value

    def _load(self, key: _K, load: Callable[[], Coroutine[Any, Any, Loaded[_V]]]) -> asyncio.Task[Loaded[_V]]:
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.get_running_loop().create_task(load())
            task.add_done_callback(lambda done: self._finish(key, done))
        return task

    def _finish(self, key: _K, done: asyncio.Task[Loaded[_V]]) -> None:
        del self._loads[key]
        if done.cancelled() or done.exception() is not None:
            return
        value, seconds = done.result()
        self._entries[key] = _CacheEntry(value, self._now() + seconds)
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
