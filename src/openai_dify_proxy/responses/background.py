"""Responses that run in the background: their client may leave, and any process may be asked for them.

What runs leaves its stream in the state while it grows, and beside it how long it is to be taken for alive. So whoever
is asked for it can tell it, follow it, or say that its process died. It is cancelled by a mark that it looks for with
each write, and by Dify's own stop route, which needs only what is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import msgspec
import structlog
from msgspec import structs

from openai_dify_proxy.errors import InternalError, ProxyError, ResponseNotFound, ShuttingDown, UpstreamFailed
from openai_dify_proxy.events import Event, TurnFailed, TurnFinished
from openai_dify_proxy.responses.event_log import EventLogs, EventLogWriter, RunProgress
from openai_dify_proxy.responses.recorder import ResponseRecorder
from openai_dify_proxy.responses.response_store import ResponseStore, StoredResponse, unreachable
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
from openai_dify_proxy.turns.service import ActiveTurn, Turns
from openai_dify_proxy.turns.turn import ClientGone
from openai_dify_proxy.wire.openai.responses import RESPONSE, Response

WRITE_SECONDS = 0.1
"""How often what was said is kept, at most."""

BREATH_SECONDS = 2.0
"""How often a run that says nothing shows that it lives, and looks whether it was cancelled."""

LEASE_SECONDS = 15.0
"""How long a run is taken to be alive after it showed it last."""

FOLLOW_SECONDS = 0.5
"""How often another process looks for more of a stream."""

CANCEL_PATIENCE = 5.0
"""How long the end of a cancelled run is waited for."""

RUNNING = frozenset({"queued", "in_progress"})

log = structlog.get_logger(__name__)


class BackgroundResponses:
    """Runs responses, and answers for those of other processes. ``lease`` is in seconds."""

    def __init__(
        self, turns: Turns, kept: ResponseStore, conversations: Conversations, *, lease: float = LEASE_SECONDS
    ) -> None:
        self._turns = turns
        self._kept = kept
        self._streams = EventLogs(conversations)
        self._store = conversations.store
        self._now = conversations.now
        self._lease = lease
        self._runs: dict[str, _BackgroundRun] = {}

    async def reserve(self, keeper: ResponseRecorder, response: Response) -> None:
        """Keeps a response that is about to run. Raises StateUnreachable: then it must not."""
        begun = RunProgress(alive_until=self._alive_until())
        await self._do(await keeper.begun(response), self._streams.putting(response.id, begun))

    async def drop(self, keeper: ResponseRecorder, response: Response) -> None:
        """Forgets a response that could not be begun."""
        await self._store.run(await keeper.removing(response), *self._streams.removing(response.id, RunProgress()))

    def start(self, keeper: ResponseRecorder, running: ActiveTurn, encoder: ResponsesStreamEncoder) -> None:
        """Lets the turn of a reserved response run on by itself."""
        name = encoder.response.id
        writer = EventLogWriter(self._streams, name)
        run = _BackgroundRun(
            self._turns, keeper, running, encoder, writer, alive_until=self._alive_until, patience=self._lease
        )
        self._runs[name] = run
        run.task.add_done_callback(lambda _: self._runs.pop(name, None))

    async def load(self, caller: Caller, name: str, end_user: str | None) -> StoredResponse:
        """A response as it is by now. Raises ResponseNotFound and StateUnreachable."""
        entry = await self._kept.responses.load(caller, name, end_user)
        if not entry.running:
            return entry
        progress = await self._streams.progress(name)
        if progress.alive_until is None:  # it has ended since
            return await self._kept.responses.load(caller, name, end_user)
        response = RESPONSE.decode(entry.response)
        if self._is_over(progress):
            response = failed_response(response, _died())
        elif progress.size:
            response = structs.replace(response, status="in_progress")
        return structs.replace(entry, response=msgspec.json.encode(response))

    async def follow(
        self, response: Response, *, starting_after: int | None, beat: float | None
    ) -> AsyncIterator[bytes]:
        """The frames of a response, those that are kept and those to come, and a heartbeat in each silence of ``beat``
        seconds. Where there is no more to be had of them, an error is the last.
        """
        name = response.id
        clock = asyncio.get_running_loop().time
        told = number = 0
        told_at = reached_at = clock()
        while True:
            news = self._news(name)
            try:
                progress = await self._streams.progress(name)
                frames = await self._streams.read(name, told, progress.size)
            except ProxyError as error:
                gone = isinstance(error, ResponseNotFound) and news is None
                if gone or clock() - reached_at > self._lease:
                    yield encode_stream_error(error, number)
                    return
            else:
                reached_at = clock()
                if frames:
                    told += len(frames)
                    told_at = reached_at
                    number = next_number(frames)
                    yield frames_after(frames, starting_after)
                if _is_end(frames):
                    return
                if self._is_over(progress):
                    yield encode_failure(failed_response(response, _died()), _died(), number)
                    return
            await _wait(news)
            if beat is not None and clock() - told_at >= beat:
                told_at = clock()
                yield encode_keepalive(number)

    async def cancel(self, caller: Caller, response: Response) -> Response:
        """Ends a running response, wherever it runs, and returns what became of it. Raises StateUnreachable."""
        name = response.id
        await self._streams.mark(name, self._lease * 4)
        progress = await self._streams.progress(name)
        run = self._runs.get(name)
        if run is not None:
            run.leave()
        elif progress.task_id is not None and progress.user is not None:
            await self._stop(caller, response.model, progress.task_id, progress.user)
        give_up = self._now() + CANCEL_PATIENCE
        while not self._is_over(progress) and self._now() < give_up:
            await _wait(self._news(name))
            progress = await self._streams.progress(name)
        entry = await self._kept.responses.load(caller, name, None)
        if not entry.running:
            return RESPONSE.decode(entry.response)
        response = cancelled_response(response)  # its process is gone, or cannot reach the state
        entry = structs.replace(entry, response=msgspec.json.encode(response), running=False)
        ended = structs.replace(progress, alive_until=None)
        await self._do(await self._kept.responses.putting(caller, name, entry), self._streams.putting(name, ended))
        return response

    async def remove(self, caller: Caller, response: Response) -> None:
        """Forgets a response, and its stream if it has one. Raises StateUnreachable."""
        operations = [await self._kept.responses.removing(caller, response.id)]
        if response.background:
            with suppress(ResponseNotFound):  # its stream has gone before it
                operations += self._streams.removing(response.id, await self._streams.progress(response.id))
        await self._do(*operations)

    async def close(self, grace: float) -> None:
        """Lets what runs here go on for ``grace`` seconds, then ends it; it is kept as failed."""
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
            raise unreachable()

    def _alive_until(self) -> float:
        return self._now() + self._lease

    def _is_over(self, progress: RunProgress) -> bool:
        """Whether the run has ended, or its process died."""
        return progress.alive_until is None or progress.alive_until <= self._now()

    def _news(self, name: str) -> asyncio.Event | None:
        run = self._runs.get(name)
        return None if run is None else run.news


class _BackgroundRun:
    """A response that this process runs. ``news`` is set, and replaced, whenever more of it was kept.

    ``patience`` is how many seconds its end may take to be kept.
    """

    def __init__(
        self,
        turns: Turns,
        keeper: ResponseRecorder,
        running: ActiveTurn,
        encoder: ResponsesStreamEncoder,
        writer: EventLogWriter,
        *,
        alive_until: Callable[[], float],
        patience: float,
    ) -> None:
        self.news = asyncio.Event()
        self._turns = turns
        self._keeper = keeper
        self._running = running
        self._encoder = encoder
        self._writer = writer
        self._alive_until = alive_until
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._written_at = self._loop.time()
        self.task = self._loop.create_task(self._go_on())

    def leave(self) -> None:
        self._running.turn.leave()

    async def _go_on(self) -> None:
        try:
            await self._keep(await self._outcome())
        finally:
            self._turns.end(self._running)
            self.news.set()

    async def _outcome(self) -> list[Operation]:
        """Runs to the end, whatever it is, and returns what is to be done in the state then."""
        turn, encoder = self._running.turn, self._encoder
        try:
            return await self._answer()
        except ClientGone:
            self._writer.add(encoder.cancel(turn.ids))
        except asyncio.CancelledError:
            self._patience = 0
            self._fail(ShuttingDown("The server was shut down, and the response with it.", started=True))
        except Exception:  # a fault of ours: its text may hold anything, so only the log gets it
            log.exception("unexpected_error")
            self._fail(InternalError("The proxy failed. Tell its operator the response's id."))
        return await self._keeper.failed(encoder.response)

    async def _answer(self) -> list[Operation]:
        """Raises ClientGone if the response is cancelled."""
        turn, encoder, keeper = self._running.turn, self._encoder, self._keeper
        last = await self._read()
        if self._writer.marked:  # Dify was told to stop, and that is why it ended
            raise ClientGone
        self._writer.add(encoder.encode([last], turn.ids))
        if not isinstance(last, TurnFinished):
            return await keeper.failed(encoder.response)
        self._running.thread.extend(encoder.sent)
        told = self._running, encoder.response, encoder.sent
        await self._turns.keep(self._running, await keeper.went_on(*told))
        return await keeper.finished(*told)

    async def _read(self) -> Event:
        """Keeps all that comes before the last event, and returns that. Raises ClientGone."""
        turn = self._running.turn
        self._writer.add(self._encoder.open())
        while True:
            wake_at = self._written_at + (WRITE_SECONDS if self._writer.has_news else BREATH_SECONDS)
            events = await turn.next(wake_at)
            last = events.pop() if turn.ended else None
            if events:
                self._writer.add(self._encoder.encode(events, turn.ids))
            if last is not None or self._loop.time() >= wake_at:
                await self._write()
            if last is not None:
                return last

    def _fail(self, error: ProxyError) -> None:
        answer = self._encoder.answer
        if answer.finish_reason is None and answer.error is None:  # else its end is told already
            self._writer.add(self._encoder.encode([TurnFailed(error)], self._running.turn.ids))

    async def _write(self) -> None:
        """Shows that it is alive, and how far it has got."""
        self._written_at = self._loop.time()
        turn = self._running.turn
        progress = RunProgress(task_id=turn.ids.task_id, user=turn.user, alive_until=self._alive_until())
        if await self._writer.write(progress):
            self._tell()
        if self._writer.marked:
            self.leave()

    async def _keep(self, operations: list[Operation]) -> None:
        """Keeps the end, as soon as the state can be reached again."""
        give_up = self._loop.time() + self._patience
        while not await self._writer.write(RunProgress(), operations):
            if self._loop.time() >= give_up:
                log.warning("response_not_kept")
                break
            await asyncio.sleep(BREATH_SECONDS)
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


async def _wait(news: asyncio.Event | None) -> None:
    """Until there is more of a run, or it is time to look."""
    if news is None:
        await asyncio.sleep(FOLLOW_SECONDS)
        return
    try:
        async with asyncio.timeout(FOLLOW_SECONDS):
            await news.wait()
    except TimeoutError:
        pass  # it is time to look


def _is_end(frames: bytes) -> bool:
    """Whether these frames end the stream."""
    return frames.endswith(DONE) or b"event: response.failed\n" in frames


def _died() -> UpstreamFailed:
    return UpstreamFailed("The process that ran the response is gone.", code="worker_died", started=True)
