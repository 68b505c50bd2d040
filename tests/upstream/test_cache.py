"""A cache shares one load among concurrent callers and serves stale values during an outage."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from typing import Any

import pytest

from openai_dify_proxy.errors import ModelNotFound, ProxyError, UpstreamFailed, UpstreamMisconfigured
from openai_dify_proxy.upstream.cache import Loaded, RefreshingCache

FRESH_SECONDS = 60.0


@dataclass
class Source:
    """A counted source with one outcome per load; loads block while ``open`` is not set."""

    outcomes: list[str | ProxyError]
    loads: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def load(self) -> Loaded[str]:
        outcome = self.outcomes[self.loads]
        self.loads += 1
        try:
            await self.open.wait()
            if isinstance(outcome, ProxyError):
                raise outcome
            return Loaded(outcome, FRESH_SECONDS)
        finally:
            self.ended.set()


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> RefreshingCache[str, str]:
    return RefreshingCache(clock, max_entries=2)


async def test_a_value_is_loaded_again_only_when_it_is_stale(cache: RefreshingCache[str, str], clock: Clock) -> None:
    source = Source(["one", "two"])
    assert cache.fresh("key") is None
    assert [await cache.get("key", source.load) for _ in range(3)] == ["one"] * 3
    clock.now += FRESH_SECONDS - 1
    assert cache.fresh("key") == await cache.get("key", source.load) == "one"
    clock.now += 1
    assert cache.fresh("key") is None
    assert await cache.get("key", source.load) == cache.fresh("key") == "two"
    assert source.loads == 2


async def test_concurrent_callers_share_one_load_that_none_of_them_can_cancel(cache: RefreshingCache[str, str]) -> None:
    source = Source(["one"])
    source.open.clear()
    callers = [asyncio.create_task(cache.get("key", source.load)) for _ in range(5)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    source.open.set()
    assert await asyncio.gather(*callers[1:]) == ["one"] * 4
    assert callers[0].cancelled()
    assert source.loads == 1


@pytest.mark.parametrize(
    ("error", "served"),
    [(UpstreamFailed("x"), True), (UpstreamMisconfigured("x"), False), (ModelNotFound("x"), False)],
)
async def test_a_stale_value_is_served_only_during_an_outage(
    cache: RefreshingCache[str, str], clock: Clock, error: ProxyError, served: bool
) -> None:
    source = Source(["one", error, "three"])
    await cache.get("key", source.load)
    clock.now += FRESH_SECONDS
    if served:
        assert await cache.get("key", source.load) == "one"
    else:
        with pytest.raises(type(error)):
            await cache.get("key", source.load)
    assert await cache.get("key", source.load) == "three", "the next caller repeats a failed load"


async def test_without_a_stale_value_all_callers_get_the_error(cache: RefreshingCache[str, str]) -> None:
    source = Source([UpstreamFailed("x")])
    outcomes = await asyncio.gather(*(cache.get("key", source.load) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UpstreamFailed] * 3
    assert source.loads == 1


async def test_a_load_continues_after_all_callers_have_been_cancelled(
    cache: RefreshingCache[str, str], clock: Clock
) -> None:
    source = Source(["one", "two"])
    source.open.clear()
    with pytest.raises(TimeoutError):
        await cache.get("key", source.load, timeout=0)
    source.open.set()
    assert await cache.get("key", source.load) == "one"
    clock.now += FRESH_SECONDS
    source.open.clear()
    assert await cache.get("key", source.load, timeout=0) == "one"
    source.open.set()
    assert await cache.get("key", source.load) == "two"
    assert source.loads == 2


async def test_a_failed_load_without_callers_is_no_unhandled_error(cache: RefreshingCache[str, str]) -> None:
    source = Source([UpstreamFailed("x"), "two"])
    source.open.clear()
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    with pytest.raises(TimeoutError):
        await cache.get("key", source.load, timeout=0)
    source.open.set()
    await source.ended.wait()
    await asyncio.sleep(0)  # let the task's callbacks run
    gc.collect()
    assert not reported
    assert await cache.get("key", source.load) == "two"


async def test_the_oldest_value_is_dropped_first(cache: RefreshingCache[str, str], clock: Clock) -> None:
    source = Source(["a", "b", "a again", "c"])
    await cache.get("a", source.load)
    await cache.get("b", source.load)
    clock.now += FRESH_SECONDS
    await cache.get("a", source.load)
    await cache.get("c", source.load)
    clock.now -= FRESH_SECONDS
    assert [cache.fresh(key) for key in ("a", "b", "c")] == ["a again", None, "c"]
