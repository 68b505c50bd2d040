"""Slices of time for the callbacks of many sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from openai_dify_proxy.time_slice import TimeSlice
from tests.limits import PATIENCE


def run(time_slice: TimeSlice, callback: Callable[[], Any]) -> None:
    if time_slice.has_time():
        callback()
    else:
        time_slice.defer(callback)


async def rounds_of(time_slice: TimeSlice, callbacks: int) -> list[int]:
    """Run callbacks at once; return in which iteration of the loop each of them ran."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    rounds: list[int] = []
    iteration = 0

    def count() -> None:
        nonlocal iteration
        iteration += 1
        if len(rounds) < callbacks:
            loop.call_soon(count)
        else:
            done.set()

    count()
    for _ in range(callbacks):
        run(time_slice, lambda: rounds.append(iteration))
    await asyncio.wait_for(done.wait(), PATIENCE)
    return rounds


async def test_callbacks_that_have_no_time_wait_for_the_next_iterations() -> None:
    rounds = await rounds_of(TimeSlice(asyncio.get_running_loop(), seconds=0.0), 5)
    first = rounds[0]
    assert rounds == [first, first + 1, first + 2, first + 3, first + 4]


async def test_callbacks_share_a_slice_that_is_long_enough() -> None:
    rounds = await rounds_of(TimeSlice(asyncio.get_running_loop(), seconds=PATIENCE), 5)
    assert len(set(rounds)) == 1


async def test_callbacks_run_at_once_within_the_slice_and_in_order() -> None:
    time_slice = TimeSlice(asyncio.get_running_loop(), seconds=PATIENCE)
    order: list[str] = []
    assert time_slice.has_time(), "a slice begins"
    time_slice.defer(lambda: order.append("first"))
    assert not time_slice.has_time(), "the first comes before"
    time_slice.defer(lambda: order.append("second"))
    await asyncio.sleep(0)
    assert order == ["first", "second"]
    assert time_slice.has_time()


async def test_a_slice_ends_and_another_begins_some_time_later() -> None:
    time_slice = TimeSlice(asyncio.get_running_loop(), seconds=0.001)
    limit = perf_counter() + PATIENCE
    for expected in (True, False, True, False):
        while time_slice.has_time() != expected:
            assert perf_counter() < limit


async def test_what_a_deferred_callback_runs_is_a_part_of_it() -> None:
    time_slice = TimeSlice(asyncio.get_running_loop(), seconds=0.0)
    order: list[str] = []
    done = asyncio.Event()

    def outer() -> None:
        order.append("outer")
        run(time_slice, lambda: order.append("inner"))
        time_slice.defer(done.set)

    run(time_slice, outer)
    run(time_slice, lambda: order.append("other"))
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert order == ["outer", "inner", "other"]


async def test_callbacks_give_way_to_work_that_comes_a_little_in_each_iteration() -> None:
    loop = asyncio.get_running_loop()
    time_slice = TimeSlice(loop, seconds=PATIENCE)
    order: list[str] = []
    done = asyncio.Event()

    def arrive(left: int) -> None:
        order.append("arrival")
        time_slice.give_way()
        if left:
            loop.call_soon(arrive, left - 1)

    time_slice.defer(lambda: order.append("begins a slice"))
    await asyncio.sleep(0)
    arrive(3)
    time_slice.defer(lambda: order.append("late"))
    time_slice.defer(done.set)
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert order == ["begins a slice", *["arrival"] * 4, "late"]


async def test_callbacks_do_not_give_way_for_ever() -> None:
    loop = asyncio.get_running_loop()
    time_slice = TimeSlice(loop)
    done = asyncio.Event()

    def arrive() -> None:
        time_slice.give_way()
        if not done.is_set():
            loop.call_soon(arrive)

    arrive()
    for _ in range(3):
        done.clear()
        time_slice.defer(done.set)
        await asyncio.wait_for(done.wait(), PATIENCE)


async def test_work_that_is_left_to_tasks_counts() -> None:
    time_slice = TimeSlice(asyncio.get_running_loop(), seconds=PATIENCE)
    time_slice.defer(lambda: None)
    await asyncio.sleep(0)
    assert time_slice.has_time()
    time_slice.charge(PATIENCE)
    assert not time_slice.has_time()


async def test_a_callback_that_fails_is_reported_and_the_others_run() -> None:
    loop = asyncio.get_running_loop()
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    time_slice = TimeSlice(loop, seconds=0.0)
    done = asyncio.Event()
    time_slice.defer(lambda: 1 // 0)
    time_slice.defer(done.set)
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
