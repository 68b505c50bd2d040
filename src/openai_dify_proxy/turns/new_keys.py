"""Checks of Dify keys that came in requests and that Dify has not accepted yet."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from openai_dify_proxy.errors import AuthenticationFailed, ServerBusy
from openai_dify_proxy.settings import LimitSettings
from openai_dify_proxy.turns.admission.fair_queue import FairQueue, Line
from openai_dify_proxy.upstream.dify import DifyApp

MAX_REJECTED = 1000


class NewKeys:
    """Limits the checks of new keys, so that invalid ones neither delay valid ones nor flood Dify.

    Clients take turns by their addresses: a key waits for the running checks, for at most one of each other address,
    and for those of its own address before it. ``now`` is a clock in seconds.
    """

    def __init__(self, limits: LimitSettings, now: Callable[[], float]) -> None:
        self._free = limits.key_check_concurrency
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self.timeout = limits.key_check_timeout
        self._max_waiting = limits.key_check_queue
        self._pause = limits.key_check_pause
        self._now = now
        self._waiting: Counter[str] = Counter()
        self._rejected: OrderedDict[DifyApp, tuple[str, float]] = OrderedDict()

    @contextmanager
    def waiting(self, app: DifyApp, client: str) -> Iterator[None]:
        """Count a request from the address ``client`` that waits for the check of a key within the block.

        Raises AuthenticationFailed for a key that Dify has just rejected, and ServerBusy if too many requests wait.
        """
        message, until = self._rejected.get(app, ("", 0.0))
        if until > self._now():
            raise AuthenticationFailed(message)
        if self._waiting.total() >= self._max_waiting or self._waiting[client] >= self._max_waiting // 2:
            raise ServerBusy(
                "Too many new Dify keys are being checked. Try again in a moment.", code="too_many_keys", retry_after=1
            )
        self._waiting[client] += 1
        try:
            yield
        finally:
            self._waiting -= Counter([client])  # removes the address at zero

    @asynccontextmanager
    async def check(self, client: str) -> AsyncIterator[None]:
        """Wait until it is the turn of the address ``client``, and check one key within the block."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._queue.push(turn, Line(client, None))
            try:
                await turn
            except asyncio.CancelledError:
                self._queue.remove(turn)
                if not turn.cancelled():  # its turn has just come
                    self._end_check()
                raise
        try:
            yield
        finally:
            self._end_check()

    def _end_check(self) -> None:
        """Let the next check begin."""
        while self._queue:
            turn = self._queue.pop()
            if not turn.done():  # a cancelled check is queued until its task runs
                turn.set_result(None)
                return
        self._free += 1

    def reject(self, app: DifyApp, error: AuthenticationFailed) -> None:
        """Remember that Dify rejected the key."""
        self._rejected[app] = (error.message, self._now() + self._pause)
        self._rejected.move_to_end(app)
        if len(self._rejected) > MAX_REJECTED:
            self._rejected.popitem(last=False)
