"""The write timeout: it cancels the task of a client that does not read, and not that of a slow client."""

from __future__ import annotations

import asyncio

import pytest

from openai_dify_proxy.api.streaming import WriteTimeout


async def test_a_write_above_the_limit_cancels_its_task() -> None:
    timeout = None

    async def writing() -> None:
        nonlocal timeout
        timeout = WriteTimeout(0.02)
        timeout.begin()
        await asyncio.Event().wait()

    task = asyncio.create_task(writing())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert timeout is not None
    assert timeout.expired


async def test_the_limit_applies_to_each_write() -> None:
    timeout = WriteTimeout(2)
    loop = asyncio.get_running_loop()
    end = loop.time() + 2.5
    while loop.time() < end:
        timeout.begin()
        await asyncio.sleep(0.01)
        timeout.end()
    timeout.stop()
    assert not timeout.expired
