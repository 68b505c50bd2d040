"""Checks of Dify keys that came in requests and that Dify has not accepted yet."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from openai_dify_proxy.errors import AuthenticationFailed, ServerBusy
from openai_dify_proxy.upstream.dify import DifyApp

CONCURRENCY = 1
"""How many new keys are checked at the same time, besides the profiles of known ones."""

MAX_WAITING = 200
"""Requests that may wait for the check of a new key; each holds what has arrived of its body."""

MAX_WAITING_PER_CLIENT = MAX_WAITING // 2
"""One address cannot fill the queue."""

CHECK_SECONDS = 30.0
"""How long a check may take, including the wait for other checks."""

REJECTED_SECONDS = 10.0
"""How long a rejected key is not checked again. The owner of a new key should not wait longer."""

MAX_REJECTED = 1000


class NewKeys:
    """Limits the checks of new keys, so that invalid ones neither delay valid ones nor flood Dify.

    ``now`` is a clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.slots = asyncio.Semaphore(CONCURRENCY)
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
        if self._waiting.total() >= MAX_WAITING or self._waiting[client] >= MAX_WAITING_PER_CLIENT:
            raise ServerBusy(
                "Too many new Dify keys are being checked. Try again in a moment.", code="too_many_keys", retry_after=1
            )
        self._waiting[client] += 1
        try:
            yield
        finally:
            self._waiting -= Counter([client])  # removes the address at zero

    def reject(self, app: DifyApp, error: AuthenticationFailed) -> None:
        """Remember that Dify rejected the key."""
        self._rejected[app] = (error.message, self._now() + REJECTED_SECONDS)
        self._rejected.move_to_end(app)
        if len(self._rejected) > MAX_REJECTED:
            self._rejected.popitem(last=False)
