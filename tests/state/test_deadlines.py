"""Many futures with time limits share one timer."""

from __future__ import annotations

import asyncio

import pytest

from openai_dify_proxy.state import StateUnavailable
from openai_dify_proxy.state.deadlines import Deadlines

Future = asyncio.Future[list[bytes | None]]


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts the timers that are set."""

    timers = 0

    def call_at(self, *args: object, **more: object) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(*args, **more)  # type: ignore[arg-type]


def test_a_thousand_futures_take_one_timer() -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        deadlines = Deadlines()
        for _ in range(1000):
            future: Future = loop.create_future()
            deadlines.watch(future, 60)
            future.set_result([])
        deadlines.close()
        return loop.timers

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert runner.run(run()) == 1


async def test_each_future_fails_at_its_own_deadline() -> None:
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    slow, fast, done = (loop.create_future() for _ in range(3))
    deadlines.watch(slow, 0.05)
    deadlines.watch(done, 0.03)
    deadlines.watch(fast, 0.01)
    done.set_result([b"one"])
    with pytest.raises(StateUnavailable, match=r"no answer within 0\.01 s"):
        await fast
    assert not slow.done()
    with pytest.raises(StateUnavailable, match=r"no answer within 0\.05 s"):
        await slow
    assert await done == [b"one"]
    deadlines.close()


async def test_a_result_that_came_while_the_loop_was_busy_counts() -> None:
    """The loop runs both in one iteration; the timer is older."""
    deadlines = Deadlines()
    loop = asyncio.get_running_loop()
    future: Future = loop.create_future()
    deadlines.watch(future, 0)
    loop.call_soon(lambda: future.set_result([b"one"]))
    assert await future == [b"one"]
    deadlines.close()
