"""Work on large requests in a thread, so that the event loop answers other requests meanwhile.

One thread serves all of them: several would compete for the interpreter, and multiply the memory that they need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest

LARGE_TEXT: Final = 512 * 1024
"""Characters from which on a request is large. It takes up to 50 ms per million characters to escape role lines."""

_thread = ThreadPoolExecutor(1, thread_name_prefix="large-request")

_T = TypeVar("_T")


async def run_sized(work: Callable[[], _T], characters: int) -> _T:
    """Return the result of ``work`` on so many characters. Raises what it raises."""
    if characters < LARGE_TEXT:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_thread, work)


def text_size(request: TurnRequest, history: Sequence[HistoryMessage]) -> int:
    """Return the number of characters of a request with this history."""
    return len(request.question) + sum([len(message.text) for message in history])
