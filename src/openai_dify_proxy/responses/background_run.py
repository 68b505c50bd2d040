"""A response that this process runs in the background, from its first entry in the state to its stored end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog

from openai_dify_proxy.errors import InternalError, ProxyError, ShuttingDown
from openai_dify_proxy.events import Event, TurnFailed, TurnFinished
from openai_dify_proxy.responses.event_log import EventLogWriter, RunProgress
from openai_dify_proxy.responses.recorder import ResponseRecorder
from openai_dify_proxy.responses.response_store import state_unreachable
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.translate.openai.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.client import ClientDisconnected

WRITE_SECONDS = 0.1
"""The shortest time between two writes of a growing stream."""

RENEW_SECONDS = 2.0
"""How often a silent run renews its lease and reads the cancellation mark."""

TurnContext = AbstractAsyncContextManager[ActiveTurn]
PreparedRun = AbstractAsyncContextManager[tuple[ResponseRecorder, TurnContext]]
"""Yields the recorder of a response, and its turn, which sends the request to Dify when it is entered."""

log = structlog.get_logger(__name__)


class BackgroundRun:
    """A running response.

    ``started`` is done once the request was sent to Dify, or holds the error that came before. ``writer`` writes the
    stream; ``written`` is set, and replaced by a new event, with each of its writes.
    """

    def __init__(
        self,
        prepared: PreparedRun,
        encoder: ResponsesStreamEncoder,
        writer: EventLogWriter,
        *,
        alive_until: Callable[[], float],
        end_timeout: float,
    ) -> None:
        """``end_timeout`` limits the attempts to store the end, in seconds."""
        self.written = asyncio.Event()
        self._encoder = encoder
        self.writer = writer
        self._alive_until = alive_until
        self._end_timeout = end_timeout
        self._turn: ActiveTurn | None = None
        self._loop = asyncio.get_running_loop()
        self._written_at = self._loop.time()
        self.started: asyncio.Future[None] = self._loop.create_future()
        self.task = self._loop.create_task(self._run(prepared))

    def cancel(self) -> None:
        """Cancel the response."""
        if self._turn is not None:
            self._turn.disconnect()

    async def _run(self, prepared: PreparedRun) -> None:
        try:
            async with prepared as (recorder, context):
                await self._run_stored(recorder, context)
        except (Exception, asyncio.CancelledError) as error:
            if self.started.done():
                raise
            self.started.set_exception(error)  # ``start`` raises it
        finally:
            self.written.set()

    async def _run_stored(self, recorder: ResponseRecorder, context: TurnContext) -> None:
        """Store the response before the request to Dify: a response that cannot be found again must not run."""
        response = self._encoder.response
        put_running = await recorder.put_running(response)
        try:
            if not await self.writer.write(RunProgress(alive_until=self._alive_until()), [put_running]):
                raise state_unreachable()
            async with context as turn:
                self._turn = turn
                if not self.started.done():
                    self.started.set_result(None)
                await self._store_end(await self._outcome(turn, recorder))
        finally:
            if self._turn is None:
                await self.writer.remove([await recorder.remove(response)])

    async def _outcome(self, turn: ActiveTurn, recorder: ResponseRecorder) -> list[Operation]:
        """Run to any end, and return the operations that store it."""
        encoder = self._encoder
        try:
            return await self._answer(turn, recorder)
        except ClientDisconnected:
            self.writer.add(encoder.cancel(turn.ids))
        except asyncio.CancelledError:
            self._end_timeout = 0
            self._fail(
                turn, ShuttingDown("The server was shut down during the response. Create it again.", started=True)
            )
        except Exception:  # a bug: the text may hold secrets, so it goes to the log only
            log.exception("background_run_failed")
            self._fail(turn, InternalError("The proxy failed. Report the response id to the operator."))
        return await recorder.put_failed(encoder.response)

    async def _answer(self, turn: ActiveTurn, recorder: ResponseRecorder) -> list[Operation]:
        """Read the turn to its end, and return the operations that store it. Raises ClientDisconnected if cancelled."""
        encoder = self._encoder
        last = await self._read(turn)
        if self.writer.cancelled:  # the turn ended because Dify stopped it
            raise ClientDisconnected
        self.writer.add(encoder.encode([last], turn.ids))
        if isinstance(last, TurnFailed):
            log.warning("turn_failed", error=type(last.error).__name__, code=last.error.code, detail=last.error.log)
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
                await self._write(turn)
            if last is not None:
                return last

    def _fail(self, turn: ActiveTurn, error: ProxyError) -> None:
        answer = self._encoder.answer
        if answer.finish_reason is None and answer.error is None:  # else the end is already written
            self.writer.add(self._encoder.encode([TurnFailed(error)], turn.ids))

    async def _write(self, turn: ActiveTurn) -> None:
        """Write the stream so far and renew the lease."""
        self._written_at = self._loop.time()
        progress = RunProgress(task_id=turn.ids.task_id, user=turn.user, alive_until=self._alive_until())
        if await self.writer.write(progress):
            self._notify()
        if self.writer.cancelled:
            turn.disconnect()

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
