"""Answers: errors in OpenAI's envelope, JSON, and the event stream of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from msgspec import Struct, json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from openai_dify_proxy.errors import InternalError, MethodNotAllowed, NotFound, ProxyError, ShuttingDown
from openai_dify_proxy.events import TurnFailed, TurnIds
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.chat_streams import COMMENT, StreamEncoder
from openai_dify_proxy.translate.openai.errors import encode_error
from openai_dify_proxy.turns.service import ActiveTurn, Turns
from openai_dify_proxy.turns.turn import ClientGone

log = structlog.get_logger(__name__)

SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


FAULT = "The proxy failed. Tell its operator the request id."
WRITE_TIMEOUT_SECONDS = 60.0


class StreamTiming(Struct, frozen=True):
    """How a stream is kept alive: seconds until its status line at the latest, and between heartbeats."""

    grace: float
    interval: float
    kind: str


def json_response(value: Struct) -> Response:
    return Response(json.encode(value), media_type="application/json")


def stream_response(frames: bytes | AsyncIterator[bytes]) -> Response:
    """An event stream that is no turn's."""
    response = Response(frames) if isinstance(frames, bytes) else StreamingResponse(frames)
    response.raw_headers = [*SSE_HEADERS]
    return response


def error_response(error: ProxyError) -> Response:
    """The envelope, and headers that tell SDKs whether to send the request again."""
    if error.log is not None:
        log.error("operator_needed", error=error.message, detail=error.log)
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    if error.started or (error.status >= 429 and not error.passing):
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(encode_error(error), error.status, headers, "application/json")


async def on_proxy_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ProxyError)
    return error_response(exc)


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """What Starlette itself refuses: unknown routes and methods."""
    assert isinstance(exc, HTTPException)
    if exc.status_code == 405:
        response = error_response(
            MethodNotAllowed(f"{request.url.path} does not take {request.method}; see the Allow header.")
        )
        response.headers.update(exc.headers or {})
        return response
    if exc.status_code == 404:
        return error_response(NotFound(f"There is no {request.method} {request.url.path} here."))
    return error_response(InternalError(exc.detail))


async def on_client_gone(_request: Request, _exc: Exception) -> Response:
    """Nobody reads this; 499 is what access logs say of it."""
    return Response(status_code=499)


class ClientWatch:
    """Notices when the client of a request goes away. To be made once the body has been read."""

    def __init__(self, receive: Callable[[], Awaitable[Message]]) -> None:
        self.gone = False
        self._leave: Callable[[], object] | None = None
        self._task: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(self._run(receive))

    def then(self, leave: Callable[[], object]) -> None:
        """Calls ``leave`` when the client goes away, at once if it has already."""
        self._leave = leave
        if self.gone:
            leave()

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None  # or the two would hold each other until the collector comes

    async def _run(self, receive: Callable[[], Awaitable[Message]]) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._leave is not None:
            self._leave()


AtEnd = Callable[[Answer, str], Awaitable[None]]
"""What is to be done when a turn has ended, well or not, before its client is told: given the answer, and its text as
the client is sent it."""


async def whole_answer(turns: Turns, running: ActiveTurn, watch: ClientWatch, at_end: AtEnd) -> Answer:
    """The turn to its end, for a client that does not stream. Raises ProxyError, and ClientGone if it left."""
    answer = Answer()
    turn = running.turn
    watch.then(turn.leave)
    try:
        while not turn.ended:
            answer.add(await turn.next())
        await at_end(answer, answer.text)
    except asyncio.CancelledError:
        raise shutting_down() from None
    finally:
        watch.stop()
        turns.end(running)
    if answer.error is not None:
        log_failure(answer.error)
        raise answer.error
    return answer


def log_failure(error: ProxyError) -> None:
    """What failed, without Dify's words: they may quote the question."""
    log.warning("turn_failed", error=type(error).__name__, code=error.code)


def turn_headers(ids: TurnIds) -> dict[str, str]:
    """What is known of the turn when the headers go out."""
    headers = {}
    if ids.conversation_id:
        headers["X-Dify-Conversation-Id"] = ids.conversation_id
    if ids.message_id:
        headers["X-Dify-Message-Id"] = ids.message_id
    return headers


class TurnStream(Response):
    """A turn as an event stream.

    The status line waits for the first event that a client can see, so that an early failure is a real 4xx or 5xx, but
    no longer than ``pulse.grace``. Afterwards a failure is the stream's last frame. A client that takes nothing for
    ``WRITE_TIMEOUT_SECONDS`` counts as gone.
    """

    def __init__(
        self,
        turns: Turns,
        running: ActiveTurn,
        watch: ClientWatch,
        encoder: StreamEncoder,
        *,
        pulse: StreamTiming,
        at_end: AtEnd,
    ) -> None:
        self.background = None
        self.status_code = 200
        self._turns = turns
        self._running = running
        self._turn = running.turn
        self._watch = watch
        self._encoder = encoder
        self._pulse = pulse
        self._at_end = at_end
        self._committed = False
        self._stall = WriteTimeout()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._watch.then(self._turn.leave)
        try:
            await self._pump(scope, receive, send)
        except ClientGone:
            log.info("client_gone", task_id=self._turn.ids.task_id)
        except asyncio.CancelledError:
            if self._stall.over:
                log.info("client_stalled", task_id=self._turn.ids.task_id)
                raise
            await self._fail(shutting_down(), scope, receive, send)
        except Exception:
            await self._fail(InternalError(FAULT), scope, receive, send)
            raise
        finally:
            self._stall.stop()
            self._watch.stop()
            self._turns.end(self._running)

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        turn = self._turn
        clock = asyncio.get_running_loop().time
        commit_at = clock() + self._pulse.grace
        idle = self._pulse.interval if self._pulse.kind != "off" else None
        beat_at: float | None = None
        while True:
            events = await turn.next(beat_at if self._committed else commit_at)
            ended = turn.ended
            last = events.pop() if ended and events else None
            frames = self._encoder.encode(events, turn.ids) if events or ended else self._beat()
            if isinstance(last, TurnFailed):
                log_failure(last.error)
                if not self._committed and not frames:
                    self._encoder.answer.add_one(last)
                    await self._at_end(self._encoder.answer, "")
                    await error_response(last.error)(scope, receive, send)
                    return
            if last is not None:
                frames += self._encoder.encode((last,), turn.ids)
                await self._at_end(self._encoder.answer, self._encoder.sent)
            if not self._committed and (frames or ended or not events):
                await self._commit(send)
            if frames or ended:
                self._stall.begin()
                await send({"type": "http.response.body", "body": frames, "more_body": not ended})
                self._stall.end()
                if idle is not None:
                    beat_at = clock() + idle
            if ended:
                return
            if beat_at is None and self._committed and idle is not None:
                beat_at = clock() + idle

    def _beat(self) -> bytes:
        """What to send when nothing came: at the end of the grace the frames that open the stream."""
        if not self._committed:
            return self._encoder.open()
        return COMMENT if self._pulse.kind == "comment" else self._encoder.heartbeat()

    async def _commit(self, send: Send) -> None:
        self._committed = True
        headers = [(name.lower().encode(), value.encode()) for name, value in turn_headers(self._turn.ids).items()]
        message: Message = {"type": "http.response.start", "status": 200, "headers": SSE_HEADERS + headers}
        await send(message)

    async def _fail(self, error: ProxyError, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._committed:
            await error_response(error)(scope, receive, send)
            return
        frames = self._encoder.encode([TurnFailed(error)], self._turn.ids)
        await send({"type": "http.response.body", "body": frames, "more_body": False})


class WriteTimeout:
    """Cancels the task that made it when one write to the client takes longer than ``seconds``.

    One timer serves all writes of a stream: it looks now and then whether a write is under way, and since when.
    """

    __slots__ = ("_handle", "_loop", "_seconds", "_since", "_task", "over")

    def __init__(self, seconds: float = WRITE_TIMEOUT_SECONDS) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._since: float | None = None
        self._handle: asyncio.Handle | None = None
        self.over = False

    def begin(self) -> None:
        self._since = self._loop.time()
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds, self._look)

    def end(self) -> None:
        self._since = None

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        waited = 0.0 if self._since is None else self._loop.time() - self._since
        if waited >= self._seconds and self._task is not None:
            self.over = True
            self._task.cancel()
            return
        self._handle = self._loop.call_later(self._seconds - waited, self._look)


def shutting_down() -> ShuttingDown:
    return ShuttingDown("The server is shutting down; what was under way was stopped.", started=True)
