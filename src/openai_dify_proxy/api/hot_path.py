"""The straight line of a chat completion: no task, no coroutine that waits, and no request or response object.

Nearly all requests are of one kind: a chat of a known caller with an app whose profile is known, without tools, files
or forms. ``HotPath.serve`` answers them in the callbacks of the sockets. Its steps, and the reasons for their order:

1. Decide, without any effect. Whatever is not common returns False, and the ASGI application serves the request as if
   nothing had happened; so an error has one place. The cheapest checks come first:
   headers in a dictionary (a repeated header is not common), the caller by the raw ``Authorization`` header, the body
   decoded once, the app and its profile in memory.
2. Begin the record, which the log line, the metrics and the traces are made of.
3. Start the turn: limits, slot, claim and the request to Dify, by the coroutines that serve all other requests too.
   ``start_now`` runs them up to their first wait; usually there is none, since the slot is free, the state is in this
   process and a connection to Dify is idle. If there is one, a task continues the coroutine.
4. Read Dify's events in the callback of the network read that brought them: fold them, or encode and write them.
5. Commit the turn before the client has the last byte, again without a task unless the state has to be awaited.
6. End the block of the turn, which frees its slot; write; close the record.

A turn on this path counts as one of uvicorn's tasks, so a server that stops finishes it, and cancels it after the
grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from openai_dify_proxy.api.chat_completions import CHAT_FORM, read_chat
from openai_dify_proxy.api.errors import INTERNAL_ERROR, error_response, shutting_down
from openai_dify_proxy.api.generation import (
    PreparedAnswer,
    TurnFrames,
    commit_answer,
    prepare_answer,
    queue_headers,
    turn_headers,
)
from openai_dify_proxy.api.limits import enforce_limits
from openai_dify_proxy.api.middleware import request_id_of, standard_headers
from openai_dify_proxy.api.notices import add_notice
from openai_dify_proxy.api.responder import Responder, json_headers
from openai_dify_proxy.api.services import Services, address_of
from openai_dify_proxy.api.streaming import StreamSender
from openai_dify_proxy.eager import Started, start_now
from openai_dify_proxy.errors import InternalError, ProxyError
from openai_dify_proxy.telemetry import RequestRecords, bind_request, unbind_request
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.chat_request import UNNAMED
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.client import ClientDisconnected

ROUTE = "/v1/chat/completions"

PATHS = frozenset({ROUTE, ROUTE.removeprefix("/v1")})

MAX_BODY = 64 * 1024
"""Bytes of a body that is translated at once; larger ones need memory that is accounted for, or a thread."""

_UNCOMMON_HEADERS = frozenset({b"origin", b"content-encoding"})
"""Headers of requests that the application serves: CORS adds headers to the answer."""

log = structlog.get_logger("openai_dify_proxy.access")


class HotRequest(Protocol):
    """A complete request, as the front door has it."""

    scope: Any
    """The ASGI scope."""

    body: bytearray

    @property
    def responder(self) -> Responder: ...

    @property
    def tasks(self) -> set[Any]:
        """What the server finishes before it stops, and cancels after its grace."""


class HotPath:
    """Serves the common chat completions."""

    paths = PATHS
    max_body = MAX_BODY

    def __init__(self, services: Services, records: RequestRecords) -> None:
        self.services = services
        self.records = records

    def serve(self, request: HotRequest) -> bool:
        """Serve a complete POST request to one of ``paths``. Return False, without any effect, if it is not common."""
        services, scope = self.services, request.scope
        headers = scope["headers"]
        named = dict(headers)
        if len(named) != len(headers) or not _UNCOMMON_HEADERS.isdisjoint(named):
            return False
        caller = services.authenticator.admit_known(named)
        if caller is None:
            return False
        responder = request.responder
        try:
            prepared = self._prepare(request, responder, named, caller)
        except ProxyError:
            return False
        if prepared is None:
            return False
        record = responder.record
        record.id = request_id = request_id_of(named)
        record.method, record.path, record.route = "POST", scope["path"], ROUTE
        record.client = scope["client"] and scope["client"][0]
        self.records.begin(record, headers)
        responder.add_headers.append(lambda: standard_headers(request_id, record))
        add_notice(responder, prepared.unsupported)
        request.body = bytearray()  # the turn has its texts
        answering = _WholeAnswer if prepared.encoder is None else _StreamedAnswer
        answering(self, request, caller, prepared).begin()
        return True

    def _prepare(
        self, request: HotRequest, responder: Responder, named: dict[bytes, bytes], caller: Caller
    ) -> PreparedAnswer | None:
        """Return the turn of a common request; None for any other. Raises the errors of an invalid one."""
        services, scope = self.services, request.scope
        responder.record.begin(responder.record.received)
        identity = UNNAMED
        if caller.end_user is not None or not services.identities.names.isdisjoint(named):
            identity = services.identities.read(scope["headers"], caller)
        fields, turn = read_chat(request.body, identity)
        unusual = (turn.side_call, turn.output, turn.contents, turn.form_answer, fields.suggested_questions)
        if unusual != (None, None, None, None, None):
            return None
        app = services.apps.choose(caller, fields.model)
        if services.profiles.cached(app.dify) is None:
            return None
        responder.record.model = fields.model
        return prepare_answer(
            services, caller, app, fields, turn, form=CHAT_FORM, client=responder, address=address_of(scope)
        )


class _HotAnswer:
    """One request on this path. For uvicorn it is a task: ``cancel`` ends it."""

    def __init__(self, path: HotPath, request: HotRequest, caller: Caller, prepared: PreparedAnswer) -> None:
        self._path = path
        self._caller = caller
        self._prepared = prepared
        self._responder = request.responder
        self._id = self._responder.record.id
        self._tasks = request.tasks
        self._task: asyncio.Task[Any] | None = None
        self._beginning = False
        self._ended = False

    def begin(self) -> None:
        """Start the turn. Nothing is written before this returns: the front door is still parsing."""
        self._tasks.add(self)
        self._beginning = True
        self._step(self._open(), self._begin_reading)
        self._beginning = False

    def done(self) -> bool:
        """Return whether the request has been answered."""
        return self._ended

    def cancel(self, msg: object = None) -> None:
        """End the request, since the server stops."""
        if self._task is not None:
            self._task.cancel()
        else:
            asyncio.get_running_loop().call_soon(self._fail, asyncio.CancelledError())

    async def _open(self) -> ActiveTurn:
        await enforce_limits(self._responder, self._path.services, self._caller)
        return await self._prepared.block.__aenter__()

    def _begin_reading(self, turn: ActiveTurn) -> None:
        raise NotImplementedError

    def _step(self, work: Coroutine[Any, Any, Any], then: Callable[[Any], None], *, in_task: bool = False) -> None:
        """Run ``work``, in a task if it has to wait, and pass its result to ``then``."""
        before = bind_request(self._id)
        try:
            started = Started(None, asyncio.get_running_loop().create_task(work)) if in_task else start_now(work)
        except BaseException as error:  # noqa: BLE001 - ``_fail`` handles it
            self._fail(error)
            return
        finally:
            unbind_request(before)
        if started.task is None:
            then(started.result)
        else:
            self._task = started.task
            self._task.add_done_callback(lambda task: self._continue(task, then))

    def _continue(self, task: asyncio.Task[Any], then: Callable[[Any], None]) -> None:
        self._task = None
        try:
            result = task.result()
        except BaseException as error:  # noqa: BLE001 - ``_fail`` handles it
            self._fail(error)
        else:
            then(result)

    def _fail(self, error: BaseException) -> None:
        """End the request with an error, or without an answer if the client has disconnected."""
        if self._ended:
            return
        if self._beginning:
            asyncio.get_running_loop().call_soon(self._fail, error)
            return
        if isinstance(error, asyncio.CancelledError):
            error = shutting_down()
        elif not isinstance(error, ProxyError | ClientDisconnected):  # a bug: the text may hold secrets
            log.error("handler_failed", exc_info=error)
            error = InternalError(INTERNAL_ERROR)
        self._end_turn(error)
        if isinstance(error, ProxyError):
            self._write_error(error)
        else:
            self._record_departure()
        self._close()

    def _write_error(self, error: ProxyError) -> None:
        response = error_response(error)
        self._responder.record.fail(error)
        self._responder.start(response.status_code, response.raw_headers, bytes(response.body), more=False)

    def _record_departure(self) -> None:
        self._responder.record.departure = "client_gone"

    def _end_turn(self, error: BaseException | None = None) -> None:
        """End the block of the turn, if it has begun; one that could not begin has ended itself."""
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
        stream = self._stream
        if self._task is not None or self._ended:
            return
        before = bind_request(self._id)
        try:
            events = stream.poll()
        except BaseException as error:  # noqa: BLE001 - ``_fail`` handles it
            self._fail(error)
            return
        finally:
            unbind_request(before)
        if events:
            self._answer.add(events)
        if stream.ended:
            self._step(self._commit(), self._respond)
        elif stream.between_runs:
            self._step(stream.begin_next_run(), self._add, in_task=True)

    def _add(self, events: list[Any]) -> None:
        self._answer.add(events)
        if self._stream.ended:
            self._step(self._commit(), self._respond)
        else:
            self._read()

    async def _commit(self) -> None:
        answer = self._answer
        await commit_answer(self._turn, self._prepared.head, answer, answer.reply)
        if answer.error is not None:
            raise answer.error

    def _respond(self, _: None) -> None:
        ids, prepared = self._turn.ids, self._prepared
        body = CHAT_FORM.whole(prepared.head, self._answer, ids)
        headers = [*json_headers(body), *turn_headers(ids), *queue_headers(prepared.wait)]
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
        self._sender: StreamSender | None = StreamSender(
            self._frames, path.services.timing, self._responder, self._settle
        )

    def _begin_reading(self, turn: ActiveTurn) -> None:
        head = self._prepared.head
        self._frames.begin(turn, lambda answer, reply: commit_answer(turn, head, answer, reply))
        assert self._sender is not None
        self._sender.begin()

    def _settle(self) -> None:
        sender, frames = self._sender, self._frames
        if self._task is not None or sender is None:
            return
        try:
            if not sender.is_due():
                return
        except BaseException as error:  # noqa: BLE001 - ``_fail`` handles it
            self._fail(error)
            return
        self._step(frames.settle(), self._write, in_task=frames.between_runs)

    def _write(self, frames: bytes) -> None:
        sender = self._sender
        assert sender is not None
        if not self._frames.ended:
            sender.write_settled(frames)
            return
        sender.write_settled(frames)
        self._end_turn()
        self._close()

    def _write_error(self, error: ProxyError) -> None:
        assert self._sender is not None
        if not self._sender.fail(error):
            super()._write_error(error)

    def _record_departure(self) -> None:
        assert self._sender is not None
        self._sender.record_departure()

    def _close(self) -> None:
        assert self._sender is not None
        self._sender.close()
        self._sender = None  # it refers to this object
        super()._close()
