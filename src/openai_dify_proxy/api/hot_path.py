"""Serves common chat completions inside the callbacks of the sockets, without the ASGI application.

Nearly all requests are of one kind: a chat of a known caller with an app whose profile is known, without tools, files
or forms. ``HotPath.serve`` answers them without request and response objects, and without a task as long as nothing has
to be awaited. Its steps:

1. Decide whether the request is common. If it is not, or not valid, return False without an effect that the application
   does not overwrite, and the application serves the request. So errors in requests are answered by the application
   only. The checks are, in this order: the headers (none repeated), the caller (by the raw ``Authorization`` header),
   the body, and the app with its profile.
2. Begin the record, once it is certain that this path serves the request: the log line, the metrics and the traces are
   made of it.
3. Start the turn: limits, slot, claim, and the request to Dify, by the coroutines that serve all other requests too.
   ``start_now`` runs them up to their first wait. Usually there is none, since the slot is free, the state is in this
   process, and a connection to Dify is idle. If there is one, a task continues the coroutine.
4. Read Dify's events in the callback of the network read that brought them: fold them into the answer, or encode and
   write them.
5. Commit the turn before the client gets the last byte, so that the client's next request finds the conversation. A
   task is necessary only if the state has to be awaited.
6. End the turn, which frees its slot, and close the record. A whole answer is written in between, a stream before.

uvicorn waits for its tasks when it stops, and cancels them after its shutdown timeout. A request on this path is one of
them, by the methods ``done`` and ``cancel``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from openai_dify_proxy.api.chat_completions import CHAT_FORM, read_chat
from openai_dify_proxy.api.errors import INTERNAL_ERROR, error_response, shutting_down
from openai_dify_proxy.api.generation import (
    PreparedAnswer,
    TurnFrames,
    commit_answer,
    prepare_answer,
    turn_headers,
)
from openai_dify_proxy.api.limits import enforce_limits
from openai_dify_proxy.api.middleware import request_id_of, standard_headers
from openai_dify_proxy.api.notices import add_notice
from openai_dify_proxy.api.responder import Responder, json_headers
from openai_dify_proxy.api.services import Services, address_of
from openai_dify_proxy.api.streaming import StreamSender
from openai_dify_proxy.eager import start_now, start_task
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.events import Event
from openai_dify_proxy.keys.limits import NO_LIMITS
from openai_dify_proxy.telemetry import RequestRecords, bind_request, unbind_request
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.chat_request import UNNAMED
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.client import ClientDisconnected

_T = TypeVar("_T")

ROUTE = "/v1/chat/completions"

PATHS = frozenset({ROUTE, ROUTE.removeprefix("/v1")})

MAX_BODY = 64 * 1024
"""Bytes of the largest body that is decoded here; larger ones need the budget for bodies, or a thread."""

_UNCOMMON_HEADERS = frozenset({b"origin"})
"""Headers of requests that the application serves, since its answer has headers for CORS."""

# The same logger and event as in the middleware.
log = structlog.get_logger("openai_dify_proxy.access")


class HotRequest(Protocol):
    """A complete request, as the server's ``Cycle`` holds it."""

    scope: Any
    """The ASGI scope."""

    body: bytearray
    """The whole body."""

    @property
    def responder(self) -> Responder: ...

    @property
    def tasks(self) -> set[Any]:
        """What the server finishes before it stops, and cancels after its grace."""


class HotPath:
    """Serves the common chat completions."""

    paths = PATHS

    def __init__(self, services: Services, records: RequestRecords, *, cross_origin: bool) -> None:
        """Must be called in the event loop.

        ``cross_origin`` says whether pages of other origins may read answers, which then depend on the origin.
        """
        self.loop = asyncio.get_running_loop()
        self.services = services
        self.records = records
        self._headers = ((b"vary", b"Origin"),) if cross_origin else ()
        self.max_body = min(MAX_BODY, services.bodies.limit)

    def serve(self, request: HotRequest) -> bool:
        """Serve a complete POST request to one of ``paths``. Return False, as step 1 says, if it is not common."""
        services, scope = self.services, request.scope
        headers = scope["headers"]
        by_name = dict(headers)
        if len(by_name) != len(headers) or not _UNCOMMON_HEADERS.isdisjoint(by_name):
            return False
        caller = services.authenticator.admit_known(by_name)
        if caller is None:
            return False
        responder = request.responder
        try:
            prepared = self._prepare(request, responder, by_name, caller)
        except Exception:  # noqa: BLE001 - the application finds it too, bugs included, and answers
            return False
        if prepared is None:
            return False
        record = responder.record
        record.id = request_id = request_id_of(by_name)
        record.method, record.path, record.route = "POST", scope["path"], ROUTE
        record.client = scope["client"] and scope["client"][0]
        self.records.begin(record, headers)
        responder.add_headers.append(lambda: standard_headers(request_id, record))
        if self._headers:
            responder.add_headers.append(lambda: self._headers)
        if prepared.unsupported:
            add_notice(responder, prepared.unsupported)
        request.body = bytearray()  # the turn holds the texts that it needs
        answer_class = _WholeAnswer if prepared.encoder is None else _StreamedAnswer
        answer_class(self, request, caller, prepared).start()
        return True

    def _prepare(
        self, request: HotRequest, responder: Responder, by_name: dict[bytes, bytes], caller: Caller
    ) -> PreparedAnswer | None:
        """Return the prepared answer of a common request; None if the application has to serve it.

        Raises ProxyError if the request is invalid.
        """
        services, scope = self.services, request.scope
        responder.record.begin(responder.record.received)  # the application begins it again
        identity = UNNAMED
        if caller.end_user is not None or not services.identities.names.isdisjoint(by_name):
            identity = services.identities.read(scope["headers"], caller)
        fields, turn = read_chat(request.body, identity)
        if (
            turn.side_call is not None
            or turn.output is not None  # tools, or a format of the answer
            or turn.contents is not None  # files
            or turn.form_answer is not None
            or fields.suggested_questions is not None
        ):
            return None
        app = services.apps.choose(caller, fields.model)
        if services.profiles.cached(app.dify) is None:
            return None
        responder.record.model = fields.model
        return prepare_answer(
            services, caller, app, fields, turn, form=CHAT_FORM, client=responder, address=address_of(scope)
        )


class _HotAnswer:
    """One request on this path. It is in uvicorn's set of tasks, so it has their methods ``done`` and ``cancel``."""

    def __init__(self, path: HotPath, request: HotRequest, caller: Caller, prepared: PreparedAnswer) -> None:
        self._path = path
        self._loop = path.loop
        self._caller = caller
        self._prepared = prepared
        self._responder = request.responder
        self._id = self._responder.record.id
        self._tasks = request.tasks
        self._task: asyncio.Task[Any] | None = None
        self._starting = False
        self._ended = False

    def start(self) -> None:
        """Start the turn. Nothing is written before this returns, since the front door is still parsing."""
        self._tasks.add(self)
        self._starting = True
        self._guarded(self._start_turn)
        self._starting = False

    def done(self) -> bool:
        """Return whether the request has been answered."""
        return self._ended

    def cancel(self, msg: object = None) -> None:
        """End the request, since the server stops."""
        self._loop.call_soon(self._cancel)  # the server iterates over its tasks

    def _cancel(self) -> None:
        if self._task is None:
            self._guarded(partial(self._fail, asyncio.CancelledError()))
        elif not self._task.cancel():  # it has ended, and its result comes first
            self._loop.call_soon(self._cancel)

    def _start_turn(self) -> None:
        self._run(self._open(), self._begin_reading)

    async def _open(self) -> ActiveTurn:
        if self._caller.limits is not NO_LIMITS:
            await enforce_limits(self._responder, self._path.services, self._caller)
        self._begin_waiting()
        return await self._prepared.block.__aenter__()

    def _begin_waiting(self) -> None:
        """Called once the request is within its limits, and its status may be sent."""

    def _begin_reading(self, turn: ActiveTurn) -> None:
        """Read the events of the turn, which has been sent to Dify."""
        raise NotImplementedError

    def _run(self, work: Coroutine[Any, Any, _T], then: Callable[[_T], None], *, in_task: bool = False) -> None:
        """Run ``work``, in a task if it has to wait or if ``in_task`` is true, and pass its result to ``then``.

        It is a part of a guarded step.
        """
        started = (start_task if in_task else start_now)(work, self._loop)
        if started.task is None:
            then(started.result)
            return
        self._task = started.task
        self._task.add_done_callback(lambda task: self._guarded(lambda: self._finish_task(task, then)))

    def _finish_task(self, task: asyncio.Task[_T], then: Callable[[_T], None]) -> None:
        self._task = None
        then(task.result())

    def _guarded(self, step: Callable[[], None]) -> None:
        """Call ``step`` with the request's id in all log lines; an error ends the request."""
        before = bind_request(self._id)
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - the callers are callbacks of sockets and tasks
            self._fail(error)
        finally:
            unbind_request(before)

    def _fail(self, error: BaseException) -> None:
        """End the request with an error, or without an answer if the client has disconnected."""
        if self._ended:
            return
        if self._starting:
            self._loop.call_soon(self._guarded, partial(self._fail, error))
            return
        if isinstance(error, asyncio.CancelledError):
            error = shutting_down()
        elif not isinstance(error, ProxyError | ClientDisconnected):
            log.error("handler_failed", exc_info=error)  # a bug: only the log gets its text, which may hold secrets
            error = InternalError(INTERNAL_ERROR)
        try:
            self._end_turn(error)
            if isinstance(error, ProxyError):
                self._write_error(error)
            else:
                self._record_departure()
        except Exception:  # a bug
            log.exception("handler_failed")
            self._responder.abort()
        finally:
            self._close()

    def _write_error(self, error: ProxyError) -> None:
        response = error_response(error)
        self._responder.record.fail(error)
        if self._responder.status:  # a response that failed at its beginning
            self._responder.abort()
        else:
            self._responder.start(response.status_code, response.raw_headers, bytes(response.body), more=False)

    def _record_departure(self) -> None:
        self._responder.record.departure = "client_gone"

    def _end_turn(self, error: BaseException | None = None) -> None:
        """End the turn's block, if it has begun; ``TurnBlock.__aenter__`` has cleaned up after one that could not."""
        if self._prepared.block.turn is not None:
            self._prepared.block.end(error)

    def _close(self) -> None:
        """Close the record, after the last byte was written."""
        self._ended = True
        self._tasks.discard(self)
        record = self._responder.record
        record.status = self._responder.status or record.status
        if self._responder.disconnected and not record.departure:
            record.departure = "client_gone"
        self._path.records.close(record)


class _WholeAnswer(_HotAnswer):
    """An answer that the client receives at once."""

    def _begin_reading(self, turn: ActiveTurn) -> None:
        self._turn = turn
        self._stream = turn.stream
        self._answer = Answer()
        self._stream.listen(self._read)
        self._stream.await_events()

    def _read(self) -> None:
        """Fold the events that have arrived. Dify's reads, the timeout and the client's disconnect call it."""
        if self._task is None and not self._ended:
            self._guarded(self._poll)

    def _poll(self) -> None:
        self._fold(self._stream.poll())

    def _fold(self, events: list[Event]) -> None:
        stream = self._stream
        if events:
            self._answer.add(events)
        if stream.ended:
            answer = self._answer
            self._run(commit_answer(self._turn, self._prepared.head, answer, answer.reply), self._respond)
        elif stream.between_runs:  # calls to Dify with timeouts of their own, which need a task
            self._run(stream.begin_next_run(), self._fold_last_of_run, in_task=True)

    def _fold_last_of_run(self, events: list[Event]) -> None:
        self._fold(events)
        if not self._stream.ended:
            self._read()

    def _respond(self, _: None) -> None:
        if self._answer.error is not None:
            raise self._answer.error
        ids, prepared = self._stream.ids, self._prepared
        body = CHAT_FORM.whole(prepared.head, self._answer, ids)
        headers = json_headers(body) + turn_headers(ids, prepared.wait)
        self._end_turn()
        self._responder.start(200, headers, body, more=False)
        self._close()


class _StreamedAnswer(_HotAnswer):
    """An event stream."""

    def __init__(self, path: HotPath, request: HotRequest, caller: Caller, prepared: PreparedAnswer) -> None:
        super().__init__(path, request, caller, prepared)
        assert prepared.encoder is not None
        self._frames = TurnFrames(prepared.encoder, prepared.wait)
        self._responder.record.streamed = True
        self._sender: StreamSender | None = None

    def _begin_waiting(self) -> None:
        self._sender = StreamSender(self._frames, self._path.services.timing, self._responder, self._settle)

    def _begin_reading(self, turn: ActiveTurn) -> None:
        head = self._prepared.head
        # No suggested questions: the application serves requests for them.
        self._frames.begin(turn, lambda answer, reply: commit_answer(turn, head, answer, reply))
        assert self._sender is not None
        self._sender.begin()

    def _settle(self) -> None:
        """Await what the stream waits for, if anything, and if the client reads."""
        if self._task is None and not self._ended:
            self._guarded(self._settle_if_due)

    def _settle_if_due(self) -> None:
        if self._sender is not None and self._sender.is_due():
            self._run(self._frames.settle(), self._write_settled, in_task=self._frames.between_runs)

    def _write_settled(self, frames: bytes) -> None:
        last = self._frames.ended  # read first: the write may go on to the end of the stream
        assert self._sender is not None
        self._sender.write_settled(frames)
        if last:
            self._end_turn()
            self._close()

    def _write_error(self, error: ProxyError) -> None:
        if self._sender is None or not self._sender.fail(error):
            super()._write_error(error)

    def _record_departure(self) -> None:
        if self._sender is None:
            super()._record_departure()
        else:
            self._sender.record_departure()

    def _close(self) -> None:
        if self._sender is not None:
            self._sender.close()
        super()._close()
