"""Responses that run in the background, independent of their client, and reachable through any process.

A run writes its growing stream to the state, with a lease that shows whether it is alive. So any process can return the
response, follow it, or report that its process died. A cancellation leaves a mark that the run reads with each write,
and calls Dify's stop route, which needs only stored ids.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import structlog
from msgspec import structs

from openai_dify_proxy.errors import ProxyError, ResponseNotFound, UpstreamFailed
from openai_dify_proxy.responses.background_run import BackgroundRun, Prepare
from openai_dify_proxy.responses.event_log import EventLogs, EventLogWriter, RunProgress
from openai_dify_proxy.responses.recorder import ResponseRecorder
from openai_dify_proxy.responses.response_store import ResponseStore, StoredResponse, state_unreachable
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.telemetry import RequestRecords, Trace
from openai_dify_proxy.translate.openai.responses_answers import cancelled_response, failed_response
from openai_dify_proxy.translate.openai.responses_frames import (
    encode_failure,
    encode_keepalive,
    encode_stream_error,
)
from openai_dify_proxy.translate.openai.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.translate.openai.stored_frames import StoredFrames
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.wire.openai.responses import Response

LEASE_SECONDS = 15.0
"""How long a run counts as alive after its last write."""

FOLLOW_SECONDS = 0.5
"""How often the stream of another process's run is read."""

CANCEL_SECONDS = 5.0
"""How long to wait for the end of a cancelled run."""

RUNNING = frozenset({"queued", "in_progress"})

log = structlog.get_logger(__name__)


class BackgroundResponses:
    """Runs responses in the background, and reads and cancels those of other processes. ``lease`` is in seconds."""

    def __init__(
        self,
        turns: Turns,
        stored: ResponseStore,
        conversations: Conversations,
        records: RequestRecords,
        *,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self._turns = turns
        self._records = records
        self._stored = stored
        self._logs = EventLogs(conversations)
        self._store = conversations.store
        self._now = conversations.now
        self._lease = lease
        self._runs: dict[str, BackgroundRun] = {}
        self._followers: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """The number of runs of this process."""
        return len(self._runs)

    @property
    def unfollowed(self) -> int:
        """The number of runs of this process without a request of this process that follows their stream."""
        return len(self._runs.keys() - self._followers.keys())

    async def start(
        self,
        caller: Caller,
        recorder: ResponseRecorder,
        prepare: Prepare,
        encoder: ResponsesStreamEncoder,
        *,
        cause: Trace | None,
    ) -> None:
        """Start a response in the background, and return once it is stored as queued.

        ``recorder`` stores a response that has no turn. ``cause`` are the spans of the request.

        Raises StateUnreachable and TooLargeToStore.
        """
        name = encoder.response.id
        writer = EventLogWriter(self._logs, caller, name)
        run = BackgroundRun(
            recorder,
            prepare,
            encoder,
            writer,
            records=self._records,
            cause=cause,
            alive_until=self._alive_until,
            end_timeout=self._lease,
        )
        self._runs[name] = run
        run.task.add_done_callback(lambda _: self._runs.pop(name, None))
        try:
            await run.stored
        except asyncio.CancelledError:
            run.task.cancel()
            raise

    async def load(self, caller: Caller, name: str, end_user: str | None) -> StoredResponse:
        """Return a response in its current state. Raises ResponseNotFound and StateUnreachable."""
        entry = await self._stored.responses.load(caller, name, end_user)
        if not entry.running:
            return entry
        progress = await self._logs.progress(name)
        if progress.alive_until is None:
            entry = await self._stored.responses.load(caller, name, end_user)
            if not entry.running:  # ended in the meantime
                return entry
        response = self._stored.response_of(name, entry)
        if progress.alive_until is None:
            response = failed_response(response, _too_large())
        elif self._is_over(progress):
            response = failed_response(response, _worker_died())
        elif progress.user is not None:
            response = structs.replace(response, status="in_progress")
        return structs.replace(entry, response=msgspec.json.encode(response))

    async def follow(
        self, response: Response, *, starting_after: int | None, beat: float | None
    ) -> AsyncIterator[bytes]:
        """Yield the stored and future frames of a response, with a heartbeat after ``beat`` seconds of silence.

        They come in portions of at most ``PORTION_BYTES``, each read only after the one before it was sent; a portion
        may end within a frame. If the rest of the stream is lost, the last frame is an error, unless a frame is open.
        """
        self._followers[response.id] += 1
        try:
            async for frames in self._follow(response, starting_after, beat):
                yield frames
        finally:
            self._followers -= Counter([response.id])  # removes the key at zero

    async def _follow(self, response: Response, starting_after: int | None, beat: float | None) -> AsyncIterator[bytes]:
        name = response.id
        clock = asyncio.get_running_loop().time
        frames = StoredFrames(starting_after)
        read = 0
        sent_at = reached_at = clock()
        while True:
            written = self._written(name)
            try:
                found = await self._read(name, read, retry=clock() - reached_at <= self._lease)
            except ProxyError as error:
                if not frames.within_frame:
                    yield encode_stream_error(error, frames.number)
                return
            if found is not None:
                progress, portion = found
                read += len(portion)
                if selected := frames.feed(portion):
                    yield selected
                    sent_at = clock()
                reached_at = clock()
                if frames.ended:
                    return
                if read < progress.size:
                    continue
                if self._is_over(progress):
                    yield encode_failure(failed_response(response, _worker_died()), _worker_died(), frames.number)
                    return
            await _wait(written)
            if beat is not None and clock() - sent_at >= beat and not frames.within_frame:
                sent_at = clock()
                yield encode_keepalive(frames.number)

    async def _read(self, name: str, begin: int, *, retry: bool) -> tuple[RunProgress, bytes] | None:
        """Return the result of ``EventLogs.read``, from memory if a run of this process has just written it.

        Return None after a fault if it makes sense to ``retry``: without a run, a lost stream stays lost. Raises
        ProxyError.
        """
        run = self._runs.get(name)
        if run is not None and (portion := run.writer.recent(begin)) is not None:
            return RunProgress(run.writer.size, alive_until=math.inf), portion
        try:
            return await self._logs.read(name, begin)
        except ProxyError as error:
            if not retry or (isinstance(error, ResponseNotFound) and run is None):
                raise
            return None

    async def cancel(self, caller: Caller, response: Response) -> Response:
        """Cancel a running response of any process, and return its last state. Raises StateUnreachable."""
        name = response.id
        await self._logs.request_cancellation(caller, name, self._lease * 4)
        progress = await self._logs.progress(name)
        run = self._runs.get(name)
        if run is not None:
            run.cancel()
        elif progress.task_id is not None and progress.user is not None:
            await self._stop(caller, response.model, progress.task_id, progress.user)
        deadline = self._now() + CANCEL_SECONDS
        while not self._is_over(progress) and self._now() < deadline:
            await _wait(self._written(name))
            progress = await self._logs.progress(name)
        entry = await self._stored.responses.load(caller, name, None)
        if not entry.running:
            return self._stored.response_of(name, entry)
        response = cancelled_response(response)  # its process has died, or cannot reach the state
        entry = structs.replace(entry, response=msgspec.json.encode(response), running=False)
        ended = structs.replace(progress, alive_until=None)
        put = await self._stored.responses.put_operation(caller, name, entry)
        await self._run_operations(put, self._logs.put_progress(caller, name, ended))
        return response

    async def remove(self, caller: Caller, response: Response) -> None:
        """Remove a response, and its stream if it has one. Raises StateUnreachable."""
        operations = [await self._stored.responses.remove_operation(caller, response.id)]
        if response.background:
            with suppress(ResponseNotFound):  # the stream expired before the response
                operations += self._logs.remove_operations(caller, response.id, await self._logs.progress(response.id))
        await self._run_operations(*operations)

    async def close(self, grace: float) -> None:
        """Wait ``grace`` seconds for the runs of this process, then cancel the rest, which are stored as failed."""
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

    async def _run_operations(self, *operations: Operation) -> None:
        if await self._store.run(*operations) is None:
            raise state_unreachable()

    def _alive_until(self) -> float:
        return self._now() + self._lease

    def _is_over(self, progress: RunProgress) -> bool:
        """Return whether the run has ended or its process has died."""
        return progress.alive_until is None or progress.alive_until <= self._now()

    def _written(self, name: str) -> asyncio.Event | None:
        run = self._runs.get(name)
        return None if run is None else run.written


async def _wait(written: asyncio.Event | None) -> None:
    """Wait for the next write of a run of this process, but not longer than ``FOLLOW_SECONDS``."""
    if written is None:
        await asyncio.sleep(FOLLOW_SECONDS)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(FOLLOW_SECONDS):
            await written.wait()


def _worker_died() -> UpstreamFailed:
    return UpstreamFailed(
        "The server process that ran the response has died. Create the response again.",
        code="worker_died",
        started=True,
    )


def _too_large() -> UpstreamFailed:
    return UpstreamFailed(
        "The response is too large to store. Its stream can be read while the server holds it.",
        code="too_large_to_store",
        started=True,
    )
