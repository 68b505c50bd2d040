"""A response that this process runs in the background, from its first entry in the state to its stored end.

It is stored as ``queued`` before its turn waits for a slot. Every error from then on is the error of the response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter

import structlog

from openai_dify_proxy.errors import InternalError, ProxyError, ShuttingDown
from openai_dify_proxy.events import Event, TurnFailed, TurnFinished, TurnIds
from openai_dify_proxy.responses.event_log import EventLogWriter, RunProgress
from openai_dify_proxy.responses.recorder import ResponseRecorder
from openai_dify_proxy.responses.response_store import state_unreachable
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.telemetry import RequestRecord, RequestRecords, Trace
from openai_dify_proxy.translate.openai.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.client import Client, ClientDisconnected
from openai_dify_proxy.wire.openai.responses import Response

WRITE_SECONDS = 0.1
"""The shortest time between two writes of a growing stream."""

RENEW_SECONDS = 2.0
"""How often a silent run renews its lease and reads the cancellation mark."""

TurnContext = AbstractAsyncContextManager[tuple[ResponseRecorder, ActiveTurn]]
"""The block of a response's turn: waits for a slot, sends the request to Dify, and yields the turn and its recorder."""

Prepare = Callable[[Client], TurnContext]

log = structlog.get_logger(__name__)


class _Canceller:
    """The ``Client`` of a run: it disconnects when the response is cancelled."""

    def __init__(self, response: Response, cause: Trace | None) -> None:
        self.disconnected = False
        self.record = RequestRecord(kind="response", id=response.id, model=response.model, cause=cause)
        self.record.begin(perf_counter())
        self._callback: Callable[[], object] | None = None

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the response is cancelled, at once if it already is. Replaces an earlier one."""
        self._callback = callback
        if self.disconnected:
            callback()

    def disconnect(self) -> None:
        """Cancel the response."""
        self.disconnected = True
        if self._callback is not None:
            self._callback()


class BackgroundRun:
    """A queued or running response.

    ``stored`` is done once the response is stored as queued, or holds the error that came before. ``writer`` writes the
    stream; ``written`` is set, and replaced by a new event, with each of its writes.
    """

    def __init__(
        self,
        recorder: ResponseRecorder,
        prepare: Prepare,
        encoder: ResponsesStreamEncoder,
        writer: EventLogWriter,
        *,
        records: RequestRecords,
        cause: Trace | None,
        alive_until: Callable[[], float],
        end_timeout: float,
    ) -> None:
        """``recorder`` stores a response that has no turn. ``cause`` are the spans of the request that starts it.

        ``end_timeout`` limits the attempts to store the end, in seconds.
        """
        self.written = asyncio.Event()
        self._encoder = encoder
        self.writer = writer
        self._alive_until = alive_until
        self._end_timeout = end_timeout
        self._client = _Canceller(encoder.response, cause)
        self._records = records
        records.begin(self._client.record)
        self._turn: ActiveTurn | None = None
        self._loop = asyncio.get_running_loop()
        self._written_at = self._loop.time()
        self.stored: asyncio.Future[None] = self._loop.create_future()
        self.task = self._loop.create_task(self._run(recorder, prepare))

    @property
    def _ids(self) -> TurnIds:
        return TurnIds() if self._turn is None else self._turn.ids

    def cancel(self) -> None:
        """Cancel the response."""
        self._client.disconnect()

    async def _run(self, recorder: ResponseRecorder, prepare: Prepare) -> None:
        try:
            await self._store(recorder)
        except (Exception, asyncio.CancelledError) as error:
            if self.stored.done():
                raise
            self.stored.set_exception(error)  # ``start`` raises it
            return
        if not self.stored.done():
            self.stored.set_result(None)
        try:
            await self._run_stored(recorder, prepare)
        finally:
            self.written.set()
            self._records.close(self._client.record)

    async def _store(self, recorder: ResponseRecorder) -> None:
        """Store the response as queued: one that cannot be found again must not run."""
        response = self._encoder.response
        put_running = await recorder.put_running(response)
        self.writer.add(self._encoder.queue())
        if not await self.writer.write(RunProgress(alive_until=self._alive_until()), [put_running]):
            await self.writer.remove([await recorder.remove(response)])
            raise state_unreachable()

    async def _run_stored(self, recorder: ResponseRecorder, prepare: Prepare) -> None:
        """Wait for the turn, run it to any end, and store the end. ``recorder`` is for a response without a turn."""
        renewal = self._loop.create_task(self._renew())
        try:
            async with prepare(self._client) as (own_recorder, turn):
                await _cancel(renewal)
                self._turn = turn
                try:
                    operations = await self._answer(turn, own_recorder)
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is logged
                    operations = await self._operations_after(error, own_recorder)
                await self._store_end(operations)
        except (Exception, asyncio.CancelledError) as error:
            await _cancel(renewal)
            if self._turn is not None:
                raise
            await self._store_end(await self._operations_after(error, recorder))

    async def _renew(self) -> None:
        """Renew the lease and read the cancellation mark until the turn begins."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self._write(RunProgress(alive_until=self._alive_until()))

    async def _operations_after(self, error: BaseException, recorder: ResponseRecorder) -> list[Operation]:
        """End the stream of a response that ``error`` ended, and return the operations that store the end."""
        if isinstance(error, ClientDisconnected):
            self._client.record.departure = "cancelled"
            self.writer.add(self._encoder.cancel(self._ids))
        elif isinstance(error, asyncio.CancelledError):
            self._end_timeout = 0
            message = "The server was shut down during the response. Create it again."
            self._fail(ShuttingDown(message, started=self._turn is not None))
        elif isinstance(error, ProxyError):
            self._fail(error)
        else:  # a bug: the text may hold secrets, so it goes to the log only
            log.error("background_run_failed", exc_info=error)
            self._fail(InternalError("The proxy failed. Report the response id to the operator."))
        return await recorder.put_failed(self._encoder.response)

    async def _answer(self, turn: ActiveTurn, recorder: ResponseRecorder) -> list[Operation]:
        """Read the turn to its end, and return the operations that store it. Raises ClientDisconnected if cancelled."""
        encoder = self._encoder
        last = await self._read(turn)
        if self.writer.cancelled:  # the turn ended because Dify stopped it
            raise ClientDisconnected
        self.writer.add(encoder.encode([last], turn.ids))
        if not isinstance(last, TurnFinished):
            return await recorder.put_failed(encoder.response)
        finished = turn, encoder.response, encoder.reply
        operations = await recorder.put_finished(*finished)
        await turn.commit(encoder.reply, await recorder.put_conversation(*finished))
        return operations

    async def _read(self, turn: ActiveTurn) -> Event:
        """Write all events but the last, and return the last. Raises ClientDisconnected."""
        self.writer.add(self._encoder.open())
        while True:
            wake_at = self._written_at + (WRITE_SECONDS if self.writer.has_unwritten else RENEW_SECONDS)
            events = await turn.next(wake_at)
            last = events.pop() if turn.ended else None
            if events:
                self.writer.add(self._encoder.encode(events, turn.ids))
            if last is not None or self._loop.time() >= wake_at:
                await self._write(
                    RunProgress(task_id=turn.ids.task_id, user=turn.user, alive_until=self._alive_until())
                )
            if last is not None:
                return last

    def _fail(self, error: ProxyError) -> None:
        self._client.record.fail(error)
        answer = self._encoder.answer
        if answer.finish_reason is None and answer.error is None:  # else the end is already written
            self.writer.add(self._encoder.encode([TurnFailed(error)], self._ids))

    async def _write(self, progress: RunProgress) -> None:
        """Write the stream so far and renew the lease. Cancel the response if the state has a mark for that."""
        self._written_at = self._loop.time()
        if await self.writer.write(progress):
            self._notify()
        if self.writer.cancelled:
            self.cancel()

    async def _store_end(self, operations: list[Operation]) -> None:
        """Write the end, and retry while the state is unreachable."""
        deadline = self._loop.time() + self._end_timeout
        while not await self.writer.write(RunProgress(), operations):
            if self._loop.time() >= deadline:
                log.warning("response_lost", reason="state unavailable")
                break
            await asyncio.sleep(RENEW_SECONDS)
        self._notify()

    def _notify(self) -> None:
        self.written.set()
        self.written = asyncio.Event()


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel the task and wait for its end."""
    task.cancel()
    await asyncio.wait([task])
