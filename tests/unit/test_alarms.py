"""Timeouts that share one timer."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from openai_dify_proxy.alarms import FAR, LONG_TICKS, TICK, Alarm, Alarms, alarms_of


async def test_alarms_ring_in_their_order_and_not_early() -> None:
    loop = asyncio.get_running_loop()
    alarms, rings = Alarms(loop), list[tuple[float, float]]()
    now = loop.time()
    last = asyncio.Event()
    for delay in (0.03, 0.01, 0.02):
        alarms.set(now + delay, lambda delay=delay: rings.append((delay, loop.time())))  # type: ignore[misc]
    alarms.set(now + 0.04, last.set)
    await last.wait()
    assert [delay for delay, _ in rings] == [0.01, 0.02, 0.03]
    assert all(at >= now + delay - TICK for delay, at in rings)


async def test_a_cancelled_alarm_does_not_ring() -> None:
    loop = asyncio.get_running_loop()
    alarms, rings, last = Alarms(loop), list[str](), asyncio.Event()
    now = loop.time()
    cancelled = alarms.set(now + 0.01, lambda: rings.append("cancelled"))
    alarms.set(now + 0.01, lambda: rings.append("other"))
    alarms.cancel(cancelled)
    alarms.set(now + 0.02, last.set)
    await last.wait()
    alarms.cancel(cancelled)  # too late: no effect
    assert rings == ["other"]


async def test_an_alarm_may_cancel_another_of_its_tick() -> None:
    loop = asyncio.get_running_loop()
    alarms, rings, last = Alarms(loop), list[int](), asyncio.Event()
    now = loop.time()
    both: list[Alarm] = []

    def ring(number: int) -> None:
        rings.append(number)
        for alarm in both:
            alarms.cancel(alarm)

    both += [alarms.set(now + 0.01, lambda: ring(0)), alarms.set(now + 0.01, lambda: ring(1))]
    alarms.set(now + 0.02, last.set)
    await last.wait()
    assert len(rings) == 1


async def test_an_alarm_may_set_and_cancel_others() -> None:
    loop = asyncio.get_running_loop()
    alarms, rings, last = Alarms(loop), list[str](), asyncio.Event()
    later = alarms.set(loop.time() + 0.05, lambda: rings.append("later"))

    def replace() -> None:
        alarms.cancel(later)
        alarms.set(loop.time(), last.set)

    alarms.set(loop.time(), replace)
    await last.wait()
    assert rings == []


async def test_a_failing_alarm_does_not_silence_the_others() -> None:
    loop = asyncio.get_running_loop()
    alarms, failures, last = Alarms(loop), list[str](), asyncio.Event()
    loop.set_exception_handler(lambda _, context: failures.append(type(context["exception"]).__name__))
    now = loop.time()
    for _ in range(2):
        alarms.set(now, lambda: dict[str, int]()["missing"])
    alarms.set(now + 0.01, last.set)
    await last.wait()
    assert failures == ["KeyError", "KeyError"]


@settings(derandomize=True, database=None, deadline=None)
@given(st.floats(0, 1000))
def test_far_alarms_share_long_ticks_and_none_is_early(delay: float) -> None:
    loop = asyncio.new_event_loop()
    try:
        when = loop.time() + delay
        tick = Alarms(loop).set(when, lambda: None).tick
    finally:
        loop.close()
    longest = LONG_TICKS if delay > FAR else 1
    assert when <= tick * TICK <= when + (longest + 1) * TICK
    assert delay <= FAR or tick % LONG_TICKS == 0


async def test_each_loop_has_its_own() -> None:
    loop = asyncio.get_running_loop()
    assert alarms_of(loop) is alarms_of(loop)
    other = asyncio.new_event_loop()
    try:
        assert alarms_of(other) is not alarms_of(loop)
    finally:
        other.close()
