"""Responses that run in the background: their client may leave, and any process may be asked for them.

What runs leaves its stream in the state piece by piece, and with each piece how long it is to be taken for alive. So
whoever is asked for it can tell it, follow it, or say that its process died. It is cancelled by a mark that it looks
for with each piece, and by Dify's own stop route, which needs only what is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec
import structlog
from msgspec import structs

from openai_dify_proxy.errors import InternalError, ProxyError, ShuttingDown, UpstreamFailed
from openai_dify_proxy.events import Event, TurnFailed, TurnFinished
from openai_dify_proxy.state.store import Get, Operation, Put
from openai_dify_proxy.translate.responses_answers import cancelled_response, failed_response
from openai_dify_proxy.translate.responses_streams import (
    ResponsesStreamEncoder,
    encode_failure,
    encode_keepalive,
    frames_after,
    next_number,
)
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.kept import Kept, KeptResponse
from openai_dify_proxy.turns.service import Running, Turns
from openai_dify_proxy.turns.turn import ClientGone
from openai_dify_proxy.wire.openai.responses import RESPONSE, Response

PIECE_SECONDS = 0.1
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

Complete = Callable[[KeptResponse, str], KeptResponse]
"""Adds to the entry of a response that has finished what the next one needs to go on from it."""

Keep = Callable[[KeptResponse, Sequence[bytes]], Awaitable[list[Operation]]]

log = structlog.get_logger(__name__)


class Background:
    """Runs responses, and answers for those of other processes."""

    def __init__(self, turns: Turns, kept: Kept, conversations: Conversations) -> None:
        self._turns = turns
        self._kept = kept
        self._conversations = conversations
        self._store = conversations.store
        self._runs: dict[str, _Run] = {}

    async def start(
        self,
        caller: Caller,
        running: Running,
        encoder: ResponsesStreamEncoder,
        entry: KeptResponse,
        complete: Complete,
    ) -> Response:
        """Lets a turn run on by itself, and returns the response as it stands now.

        Raises StateUnreachable: then nothing runs.
        """
        name = encoder.response.id

        async def keep(entry: KeptResponse, pieces: Sequence[bytes]) -> list[Operation]:
            begin = entry.pieces - len(pieces)
            ttl = self._conversations.ttl
            return [
                Get(_mark(name)),
                await self._kept.responses.putting(caller, name, entry),
                *(Put(_piece(name, begin + number), piece, ttl) for number, piece in enumerate(pieces)),
            ]

        run = _Run(self._turns, self._conversations, running, encoder, entry, keep=keep, complete=complete)
        try:
            await self._kept.responses.put(caller, name, run.alive())
        except BaseException:
            self._turns.end(running)
            raise
        self._runs[name] = run
        run.task = asyncio.get_running_loop().create_task(run.go_on())
        run.task.add_done_callback(lambda _: self._runs.pop(name, None))
        return RESPONSE.decode(run.entry.response)

    async def load(self, caller: Caller, name: str, end_user: str | None) -> KeptResponse:
        """A response as it is by now. Raises ResponseNotFound and StateUnreachable."""
        entry = await self._kept.responses.load(caller, name, end_user)
        if not self._is_dead(entry):
            return entry
        response = failed_response(RESPONSE.decode(entry.response), _died())
        return structs.replace(entry, response=msgspec.json.encode(response))

    async def follow(
        self, caller: Caller, name: str, *, starting_after: int | None, beat: float | None
    ) -> AsyncIterator[bytes]:
        """The frames of a response, those that are kept and those to come, and a heartbeat in each silence of ``beat``
        seconds. Raises ResponseNotFound and StateUnreachable.
        """
        told = 0
        told_at = self._conversations.now()
        frames = b""
        while True:
            news = self._news(name)
            entry = await self._kept.responses.load(caller, name, None)
            if told < entry.pieces:
                pieces = await self._store.run(*(Get(_piece(name, number)) for number in range(told, entry.pieces)))
                fresh = b"".join(piece or b"" for piece in pieces or [])
                told = entry.pieces
                told_at = self._conversations.now()
                frames += fresh
                yield frames_after(fresh, starting_after)
            if entry.alive_until is None:
                return
            if self._is_dead(entry):
                response = failed_response(RESPONSE.decode(entry.response), _died())
                yield encode_failure(response, _died(), next_number(frames))
                return
            await _wait(news)
            if beat is not None and self._conversations.now() - told_at >= beat:
                told_at = self._conversations.now()
                yield encode_keepalive(next_number(frames))

    async def cancel(self, caller: Caller, name: str, entry: KeptResponse) -> Response:
        """Ends a running response, wherever it runs. Raises StateUnreachable."""
        response = RESPONSE.decode(entry.response)
        await self._store.run(Put(_mark(name), b"1", LEASE_SECONDS * 4))
        run = self._runs.get(name)
        if run is not None:
            run.leave()
        elif entry.task_id is not None and entry.user is not None:
            try:
                await self._turns.stop(caller, response.model, entry.task_id, entry.user)
            except ProxyError as error:
                log.warning("stop_failed", task_id=entry.task_id, error=error.message, detail=error.log)
        end = self._conversations.now() + CANCEL_PATIENCE
        while entry.alive_until is not None and not self._is_dead(entry) and self._conversations.now() < end:
            await _wait(self._news(name))
            entry = await self._kept.responses.load(caller, name, None)
        response = RESPONSE.decode(entry.response)
        if entry.alive_until is not None:
            response = cancelled_response(response)
            await self._kept.responses.put(
                caller, name, structs.replace(entry, response=msgspec.json.encode(response), alive_until=None)
            )
        return response

    async def close(self) -> None:
        """Ends what runs here; it is kept as failed."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_dead(self, entry: KeptResponse) -> bool:
        return entry.alive_until is not None and entry.alive_until <= self._conversations.now()

    def _news(self, name: str) -> asyncio.Event | None:
        run = self._runs.get(name)
        return None if run is None else run.news


class _Run:
    """A response that this process runs. ``news`` is set, and replaced, whenever more of it was kept."""

    def __init__(
        self,
        turns: Turns,
        conversations: Conversations,
        running: Running,
        encoder: ResponsesStreamEncoder,
        entry: KeptResponse,
        *,
        keep: Keep,
        complete: Complete,
    ) -> None:
        self.entry = entry
        self.news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._turns = turns
        self._running = running
        self._encoder = encoder
        self._keep = keep
        self._complete = complete
        self._store = conversations.store
        self._now = conversations.now
        self._begun = encoder.response
        self._frames = [encoder.open()]
        self._loop = asyncio.get_running_loop()
        self._kept_at = self._loop.time()

    def alive(self) -> KeptResponse:
        """The entry while the response goes on."""
        turn = self._running.turn
        self.entry = structs.replace(
            self.entry,
            response=msgspec.json.encode(structs.replace(self._begun, status="in_progress")),
            task_id=turn.ids.task_id,
            user=turn.user,
            alive_until=self._now() + LEASE_SECONDS,
        )
        return self.entry

    def leave(self) -> None:
        self._running.turn.leave()

    async def go_on(self) -> None:
        turn = self._running.turn
        try:
            await self._read_all()
        except ClientGone:
            self._frames.append(self._encoder.cancel(turn.ids))
            await self._write(self._ended())
        except asyncio.CancelledError:
            await self._fail(ShuttingDown("The server was shut down, and the response with it.", started=True))
        except Exception:  # a fault of ours: its text may hold anything, so only the log gets it
            log.exception("unexpected_error")
            await self._fail(InternalError("The proxy failed. Tell its operator the response's id."))
        finally:
            self._turns.end(self._running)
            self.news.set()

    async def _read_all(self) -> None:
        turn, encoder = self._running.turn, self._encoder
        last: Event | None = None
        while last is None:
            pause = PIECE_SECONDS if self._frames else BREATH_SECONDS
            events = await turn.next(self._kept_at + pause)
            if turn.ended:
                last = events[-1]
            if events:
                self._frames.append(encoder.encode(events, turn.ids))
            if last is None and self._loop.time() >= self._kept_at + pause:
                await self._write(self.alive())
        if not isinstance(last, TurnFinished):
            await self._write(self._ended())
            return
        self._running.thread.extend(encoder.sent)
        entry = self._complete(self._ended(), encoder.sent)
        await self._turns.keep(self._running, await self._keeping(entry))
        self._told(entry)

    async def _fail(self, error: ProxyError) -> None:
        self._frames.append(self._encoder.encode([TurnFailed(error)], self._running.turn.ids))
        await self._write(self._ended())

    def _ended(self) -> KeptResponse:
        return structs.replace(self.entry, response=msgspec.json.encode(self._encoder.response), alive_until=None)

    async def _write(self, entry: KeptResponse) -> None:
        """Keeps what there is; what cannot be kept now is kept with the next piece."""
        self._kept_at = self._loop.time()
        results = await self._store.run(*await self._keeping(entry))
        if results is not None:
            self._told(entry)
            if results[0] is not None:
                self.leave()

    async def _keeping(self, entry: KeptResponse) -> list[Operation]:
        self._frames = [frames for frames in [b"".join(self._frames)] if frames]
        return await self._keep(structs.replace(entry, pieces=self.entry.pieces + len(self._frames)), self._frames)

    def _told(self, entry: KeptResponse) -> None:
        self.entry = structs.replace(entry, pieces=self.entry.pieces + len(self._frames))
        self._frames = []
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


def _mark(name: str) -> str:
    return f"cancelled:{name}"


def _piece(name: str, number: int) -> str:
    return f"piece:{name}:{number}"


def _died() -> UpstreamFailed:
    return UpstreamFailed("The process that ran the response is gone.", code="worker_died", started=True)
