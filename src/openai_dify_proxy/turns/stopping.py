"""Stops abandoned turns in Dify."""

from __future__ import annotations

import asyncio

import structlog

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.translate.dify.request import stop_path
from openai_dify_proxy.turns.dify_stream import DifyStream
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.wire.dify import Mode

DRAIN_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Stopper:
    """Stops abandoned turns in the background.

    The stop route needs a ``task_id``, which pings lack. So a turn without one stays open until its first event, within
    its time limit. After the stop the stream is drained for a few seconds, since old versions of Dify store
    an empty answer if it is dropped.
    """

    def __init__(self, dify: DifyClient) -> None:
        self._dify = dify
        self._tasks: set[asyncio.Task[None]] = set()

    def abandon(self, stream: DifyStream, mode: Mode) -> asyncio.Task[None] | None:
        """Stop a turn whose request has ended. Return the task of the stop, or None if Dify has ended the turn."""
        if stream.finished_upstream:
            stream.close()
            return None
        task = asyncio.get_running_loop().create_task(self._stop(stream, mode))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the turns that are being stopped, then cancel the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stop(self, stream: DifyStream, mode: Mode) -> None:
        try:
            task_id = await stream.wait_for_task_id(stream.first_event_timeout)
            if task_id is None or stream.finished_upstream:
                return
            await self._dify.stop(stream.app, stop_path(mode, task_id), stream.user)
            log.info("turn_stopped", task_id=task_id)
            await stream.drain(DRAIN_SECONDS)
        except ProxyError as error:
            log.warning("stop_failed", task_id=stream.ids.task_id, error=error.message, detail=error.log)
        finally:
            stream.close()
