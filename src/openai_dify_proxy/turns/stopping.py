"""Stops abandoned turns in Dify.

A Dify with room answers a stop call at once, and the turn's stream then ends by itself. It is read until then, since
versions up to 1.13 store an empty answer if it is dropped.

A full Dify, with all its connections taken by streams, answers nothing until a slot is free. A stop call then waits
until a run ends, and cuts nothing: after 10 s in a measurement, but after 0.8 s with the stream closed first. So if a
stop call is not answered within ``PROMPT_SECONDS``, the streams of all abandoned turns of that Dify are closed. Their
slots are free as soon as Dify notices, and the waiting stop calls are served. Further turns are closed before their
stop call, until Dify answers one.

The stop route needs a ``task_id``, which pings lack. So a turn without one stays open until its first event, within its
time limit, also on a full Dify. Its request may still wait to be accepted there: closed now, it would lie complete in
the socket, Dify would run it all the same, and nothing could stop that run.
"""

from __future__ import annotations

import asyncio

import structlog

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.translate.dify.request import stop_path
from openai_dify_proxy.turns.dify_stream import DifyStream
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.wire.dify import Mode

PROMPT_SECONDS = 1.0
"""How long a Dify with room may take to answer a stop call, which only sets a flag.

A full one needs another 0.8 s to notice closed streams, so all runs are cut within 2 s.
"""

CALLS_AT_ONCE = 4
"""How many stop calls one Dify is sent at the same time. Many abandoned turns must not take its connections."""

DRAIN_SECONDS = 5.0
"""How long a stopped stream is read."""

HURRY_SECONDS = 2.0
"""How long before the end of ``Stopper.close`` streams are closed without waiting for their stop call."""

log = structlog.get_logger(__name__)


class Stopper:
    """Stops abandoned turns in the background."""

    def __init__(self, dify: DifyClient) -> None:
        self._dify = dify
        self._tasks: dict[Exchange, asyncio.Task[None]] = {}
        self._queues: dict[str, _StopQueue] = {}
        self._draining: set[DifyStream] = set()
        self._hurried = False
        self._failed = 0

    def abandon(self, stream: DifyStream, mode: Mode) -> asyncio.Task[None] | None:
        """Stop a turn whose request has ended. Return None if Dify has ended it, else the task of the stop.

        When the task ends, the stream is closed, and the stop call was answered or has failed. A turn that is being
        stopped already has the same task.
        """
        exchange = stream.exchange
        if (task := self._tasks.get(exchange)) is not None:
            return task
        if stream.finished_upstream:
            stream.close()
            return None
        task = asyncio.get_running_loop().create_task(self._stop(stream, mode))
        self._tasks[exchange] = task
        task.add_done_callback(lambda _: self._tasks.pop(exchange))
        return task

    async def close(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the turns that are being stopped, then give up the rest.

        In the last ``HURRY_SECONDS`` their streams are closed first: even a full Dify then serves the stop calls.
        """
        failed_before = self._failed
        if self._tasks:
            log.info("stops_awaited", count=len(self._tasks), seconds=round(timeout))
        await self._wait(timeout - HURRY_SECONDS)
        self._hurried = True
        for queue in self._queues.values():
            queue.close_streams()
        for stream in self._draining:
            stream.close()
            stream.exchange.wake()  # its reader
        await self._wait(min(timeout, HURRY_SECONDS))
        if unconfirmed := self._failed - failed_before + len(self._tasks):
            log.warning("stops_unconfirmed", count=unconfirmed)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _wait(self, timeout: float) -> None:
        """Wait until no turn is being stopped, at most ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while self._tasks and (left := end - loop.time()) > 0:
            await asyncio.wait(self._tasks.values(), timeout=left)

    async def _stop(self, stream: DifyStream, mode: Mode) -> None:
        task_id = None
        try:
            task_id = await stream.wait_for_task_id(stream.first_event_timeout)
            if stream.finished_upstream:
                return
            if task_id is None:
                self._report(None, "Dify named no task_id, without which it cannot stop a run.")
                return
            await self._call(stream, stop_path(mode, task_id))
            stream.stopped = True
            log.info("turn_stopped", task_id=task_id)
            await self._drain(stream)
        except ProxyError as error:
            self._report(task_id, error.message, error.log)
        finally:
            stream.close()

    def _report(self, task_id: str | None, error: str, detail: str | None = None) -> None:
        self._failed += 1
        log.warning("stop_failed", task_id=task_id, error=error, detail=detail)

    async def _call(self, stream: DifyStream, path: str) -> None:
        """Call the stop route. Return once Dify has confirmed the stop; raises ProxyError."""
        url = stream.app.url
        queue = self._queues.get(url)
        if queue is None:
            queue = self._queues[url] = _StopQueue()
        if self._hurried or queue.full:
            stream.close()
        queue.streams.add(stream)
        try:
            async with queue.calls:
                overdue = asyncio.get_running_loop().call_later(PROMPT_SECONDS, queue.close_streams)
                try:
                    await self._dify.stop(stream.app, path, stream.user)
                finally:
                    overdue.cancel()
            queue.full = False
        finally:
            queue.streams.discard(stream)
            if not queue.streams:
                self._queues.pop(url, None)

    async def _drain(self, stream: DifyStream) -> None:
        if self._hurried:
            return
        self._draining.add(stream)
        try:
            await stream.drain(DRAIN_SECONDS)
        finally:
            self._draining.discard(stream)


class _StopQueue:
    """The unanswered stop calls to one Dify, and the streams of their turns."""

    def __init__(self) -> None:
        self.calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self.streams: set[DifyStream] = set()
        self.full = False
        """Whether a call is overdue and none has been answered since."""

    def close_streams(self) -> None:
        """Close the streams, which frees their slots in Dify."""
        self.full = True
        for stream in self.streams:
            stream.close()
