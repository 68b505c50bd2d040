"""A client that takes nothing counts as gone, and one that takes its time does not."""

from __future__ import annotations

import asyncio

import pytest

from openai_dify_proxy.api.streaming import WriteTimeout


async def test_a_write_that_takes_too_long_ends_its_task() -> None:
    stall = None

    async def writing() -> None:
        nonlocal stall
        stall = WriteTimeout(0.02)
        stall.begin()
        await asyncio.Event().wait()

    task = asyncio.create_task(writing())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stall is not None
    assert stall.expired


async def test_many_short_writes_are_no_long_one() -> None:
    stall = WriteTimeout(2)
    loop = asyncio.get_running_loop()
    end = loop.time() + 2.5
    while loop.time() < end:
        stall.begin()
        await asyncio.sleep(0.01)
        stall.end()
    stall.stop()
    assert not stall.expired
