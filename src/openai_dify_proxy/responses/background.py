"""Responses that run in the background: their client may leave, and any process may be asked about them.

A run writes its stream to the state while it grows, and beside it until when it counts as alive. So any process can
return the response, follow it, or report that its process died. A run is cancelled by a mark that it reads with each
write, and by Dify's own stop route, which needs only what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import structlog
from msgspec import structs

from openai_dify_proxy.errors import ProxyError, ResponseNotFound, UpstreamFailed
from openai_dify_proxy.responses.background_run import BackgroundRun, PreparedRun
from openai_dify_proxy.responses.event_log import EventLogs, EventLogWriter, RunProgress
from openai_dify_proxy.responses.response_store import ResponseStore, StoredResponse, state_unreachable
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.translate.openai.chat_streams import DONE
from openai_dify_proxy.translate.openai.responses_answers import cancelled_response, failed_response
from openai_dify_proxy.translate.openai.responses_streams import (
    ResponsesStreamEncoder,
    encode_failure,
    encode_keepalive,
    encode_stream_error,
    frames_after,
    next_number,
)
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.wire.openai.responses import RESPONSE, Response

LEASE_SECONDS = 15.0
"""How long a run counts as alive after its last write."""

FOLLOW_SECONDS = 0.5
"""How often the stream of another process's run is read again."""

CANCEL_PATIENCE = 5.0
"""How long to wait for the end of a cancelled run."""

RUNNING = frozenset({"queued", "in_progress"})

log = structlog.get_logger(__name__)


class BackgroundResponses:
    """Runs responses, and answers for those of other processes. ``lease`` is in seconds."""

    def __init__(
        self, turns: Turns, stored: ResponseStore, conversations: Conversations, *, lease: float = LEASE_SECONDS
    ) -> None:
        self._turns = turns
        self._stored = stored
        self._logs = EventLogs(conversations)
        self._store = conversations.store
        self._now = conversations.now
        self._lease = lease
        self._runs: dict[str, BackgroundRun] = {}

    async def start(self, prepared: PreparedRun, encoder: ResponsesStreamEncoder) -> None:
        """Let a response run by itself, and return once Dify was asked.

        Raises StateUnreachable, and whatever kept Dify from being asked.
        """
        name = encoder.response.id
        writer = EventLogWriter(self._logs, name)
        run = BackgroundRun(prepared, encoder, writer, alive_until=self._alive_until, patience=self._lease)
        self._runs[name] = run
        run.task.add_done_callback(lambda _: self._runs.pop(name, None))
        try:
            await run.asked
        except asyncio.CancelledError:
            run.task.cancel()
            raise

    async def load(self, caller: Caller, name: str, end_user: str | None) -> StoredResponse:
        """Return a response in its present state. Raises ResponseNotFound and StateUnreachable."""
        entry = await self._stored.responses.load(caller, name, end_user)
        if not entry.running:
            return entry
        progress = await self._logs.progress(name)
        if progress.alive_until is None:  # it has ended since
            return await self._stored.responses.load(caller, name, end_user)
        response = RESPONSE.decode(entry.response)
        if self._is_over(progress):
            response = failed_response(response, _worker_died())
        elif progress.size:
            response = structs.replace(response, status="in_progress")
        return structs.replace(entry, response=msgspec.json.encode(response))

    async def follow(
        self, response: Response, *, starting_after: int | None, beat: float | None
    ) -> AsyncIterator[bytes]:
        """Yield the frames of a response, stored and to come, and a heartbeat after each silence of ``beat`` seconds.

        If the rest cannot be had, the last frame is an error.
        """
        name = response.id
        clock = asyncio.get_running_loop().time
        sent = number = 0
        sent_at = reached_at = clock()
        while True:
            news = self._news(name)
            try:
                progress = await self._logs.progress(name)
                frames = await self._logs.read(name, sent, progress.size)
            except ProxyError as error:
                gone = isinstance(error, ResponseNotFound) and news is None
                if gone or clock() - reached_at > self._lease:
                    yield encode_stream_error(error, number)
                    return
            else:
                reached_at = clock()
                if frames:
                    sent += len(frames)
                    sent_at = reached_at
                    number = next_number(frames)
                    yield frames_after(frames, starting_after)
                if _is_end(frames):
                    return
                if self._is_over(progress):
                    yield encode_failure(failed_response(response, _worker_died()), _worker_died(), number)
                    return
            await _wait(news)
            if beat is not None and clock() - sent_at >= beat:
                sent_at = clock()
                yield encode_keepalive(number)

    async def cancel(self, caller: Caller, response: Response) -> Response:
        """End a running response, wherever it runs, and return its last state. Raises StateUnreachable."""
        name = response.id
        await self._logs.request_cancellation(name, self._lease * 4)
        progress = await self._logs.progress(name)
        run = self._runs.get(name)
        if run is not None:
            run.leave()
        elif progress.task_id is not None and progress.user is not None:
            await self._stop(caller, response.model, progress.task_id, progress.user)
        give_up = self._now() + CANCEL_PATIENCE
        while not self._is_over(progress) and self._now() < give_up:
            await _wait(self._news(name))
            progress = await self._logs.progress(name)
        entry = await self._stored.responses.load(caller, name, None)
        if not entry.running:
            return RESPONSE.decode(entry.response)
        response = cancelled_response(response)  # its process is gone, or cannot reach the state
        entry = structs.replace(entry, response=msgspec.json.encode(response), running=False)
        ended = structs.replace(progress, alive_until=None)
        put = await self._stored.responses.put_operation(caller, name, entry)
        await self._do(put, self._logs.put_progress(name, ended))
        return response

    async def remove(self, caller: Caller, response: Response) -> None:
        """Remove a response, and its stream if it has one. Raises StateUnreachable."""
        operations = [await self._stored.responses.remove_operation(caller, response.id)]
        if response.background:
            with suppress(ResponseNotFound):  # the stream expired before the response
                operations += self._logs.remove_operations(response.id, await self._logs.progress(response.id))
        await self._do(*operations)

    async def close(self, grace: float) -> None:
        """Let the runs of this process go on for ``grace`` seconds, then end them; they are stored as failed."""
        tasks = [run.task for run in self._runs.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop(self, caller: Caller, model: str, task_id: str, user: str) -> None:
        try:
            await self._turns.stop(caller, model, task_id, user)
        except ProxyError as error:
            log.warning("stop_failed", task_id=task_id, error=error.message, detail=error.log)

    async def _do(self, *operations: Operation) -> None:
        if await self._store.run(*operations) is None:
            raise state_unreachable()

    def _alive_until(self) -> float:
        return self._now() + self._lease

    def _is_over(self, progress: RunProgress) -> bool:
        """Whether the run has ended, or its process died."""
        return progress.alive_until is None or progress.alive_until <= self._now()

    def _news(self, name: str) -> asyncio.Event | None:
        run = self._runs.get(name)
        return None if run is None else run.news


async def _wait(news: asyncio.Event | None) -> None:
    """Wait for more of a run of this process; for a run of another, until it is time to read again."""
    if news is None:
        await asyncio.sleep(FOLLOW_SECONDS)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(FOLLOW_SECONDS):
            await news.wait()


def _is_end(frames: bytes) -> bool:
    """Whether these frames end the stream."""
    return frames.endswith(DONE) or b"event: response.failed\n" in frames


def _worker_died() -> UpstreamFailed:
    return UpstreamFailed("The process that ran the response is gone.", code="worker_died", started=True)
