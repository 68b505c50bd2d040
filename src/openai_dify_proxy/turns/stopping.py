"""Nothing runs on unattended: a turn that nobody waits for is stopped in Dify."""

from __future__ import annotations

import asyncio

import structlog

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.translate.dify.request import stop_path
from openai_dify_proxy.turns.turn import Turn
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.wire.dify import Mode

DRAIN_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Stopper:
    """Stops abandoned turns in the background.

    The stop route needs a ``task_id``, which no ping carries, so a turn that has none yet is kept open until its first
    event, for as long as it might have waited for that itself. Afterwards the stream is drained for a moment, since an
    old Dify stores an empty answer for a turn whose stream was dropped.
    """

    def __init__(self, dify: DifyClient) -> None:
        self._dify = dify
        self._tasks: set[asyncio.Task[None]] = set()

    def abandon(self, turn: Turn, mode: Mode) -> asyncio.Task[None] | None:
        """Takes a turn over from its request, and returns what ends it; None for one that Dify has ended itself."""
        if turn.finished_upstream:
            turn.close()
            return None
        task = asyncio.get_running_loop().create_task(self._stop(turn, mode))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, timeout: float) -> None:
        """Waits for what is being stopped; at most ``timeout`` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stop(self, turn: Turn, mode: Mode) -> None:
        try:
            task_id = await turn.next_ids(turn.patience)
            if task_id is None or turn.finished_upstream:
                return
            await self._dify.stop(turn.app, stop_path(mode, task_id), turn.user)
            log.info("turn_stopped", task_id=task_id)
            await turn.drain(DRAIN_SECONDS)
        except ProxyError as error:
            log.warning("stop_failed", task_id=turn.ids.task_id, error=error.message, detail=error.log)
        finally:
            turn.close()
