"""Work on a large request does not block the event loop for other requests."""

from __future__ import annotations

import asyncio
import threading

from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.large_requests import LARGE_TEXT, run_sized, text_size


async def test_large_work_runs_beside_the_event_loop() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert go_on.wait(60)
        return threading.current_thread().name

    running = asyncio.create_task(run_sized(work, LARGE_TEXT))
    assert await asyncio.to_thread(begun.wait, 60)
    go_on.set()  # the loop runs while the work waits
    assert (await running).startswith("large-request")


async def test_small_work_needs_no_thread() -> None:
    assert await run_sized(threading.get_ident, LARGE_TEXT - 1) == threading.get_ident()


async def test_at_most_one_large_request_is_worked_on() -> None:
    running = most = 0

    def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1

    await asyncio.gather(*(run_sized(work, LARGE_TEXT) for _ in range(50)))
    assert most == 1


def test_the_size_of_a_request_includes_its_history() -> None:
    assert text_size(TurnRequest("12345"), [HistoryMessage("user", "123"), HistoryMessage("assistant", "")]) == 8
