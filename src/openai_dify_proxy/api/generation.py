"""Answering a turn request, for all endpoints that generate text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from openai_dify_proxy.api.errors import shutting_down
from openai_dify_proxy.api.limits import enforce_limits
from openai_dify_proxy.api.notices import add_notice
from openai_dify_proxy.api.responder import JsonAnswer, responder_of
from openai_dify_proxy.api.services import Services, address_of, answer_head
from openai_dify_proxy.api.streaming import EventStream, RawHeaders, sse_response
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import Event, TurnFailed, TurnFinished, TurnIds
from openai_dify_proxy.files.artifacts.service import Address
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.chat_answers import AnswerHead, legacy_reply
from openai_dify_proxy.translate.openai.chat_streams import StreamEncoder
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.client import Client
from openai_dify_proxy.turns.turn_block import TurnBlock
from openai_dify_proxy.wire.openai.chat import CompletionFields

EncodeAnswer = Callable[[AnswerHead, Answer, TurnIds], bytes]

AtEnd = Callable[[Answer, HistoryMessage], Awaitable[None]]
"""Called with the answer and its message as sent, when a turn has ended and before the client gets the last frame."""


Suggest = Callable[[ActiveTurn], Awaitable[list[str] | None]]
"""Returns questions that may follow the answer of an ended turn; None if the request wants none."""


class EncodeStream(Protocol):
    def __call__(self, head: AnswerHead, *, include_usage: bool) -> StreamEncoder: ...


class AnswerForm(Struct, frozen=True):
    """How an endpoint encodes answers. ``kind`` is the prefix of their ids."""

    kind: str
    stream: EncodeStream
    whole: EncodeAnswer


class PreparedAnswer(Struct, frozen=True):
    """A turn that can begin, and how it will be answered."""

    block: TurnBlock
    head: AnswerHead
    wait: TurnWait
    unsupported: Sequence[str]
    """The parameters of the request that have no effect."""
    encoder: StreamEncoder | None
    """None if the client does not stream."""
    suggest: Suggest | None


async def answer_turn(
    request: Request,
    services: Services,
    caller: Caller,
    fields: CompletionFields,
    turn_request: TurnRequest,
    *,
    form: AnswerForm,
) -> ASGIApp:
    """Run the turn and return its response, streamed or whole.

    If the client disconnects before the request to Dify, no run starts.
    """
    responder = responder_of(request.scope)
    responder.record.model = fields.model
    if (events := services.side_calls.placeholder(turn_request.side_call)) is not None:
        chosen = services.apps.choose(caller, fields.model)  # rejects unknown models here too
        head = answer_head(form.kind, fields.model or chosen.name, turn_request)
        if fields.stream:
            return sse_response(form.stream(head, include_usage=fields.wants_usage).encode(events, TurnIds()))
        return Response(form.whole(head, fold(events), TurnIds()), media_type="application/json")
    app = services.side_calls.app(caller, turn_request.side_call, fields.model)
    prepared = prepare_answer(
        services, caller, app, fields, turn_request, form=form, client=responder, address=address_of(request.scope)
    )
    add_notice(responder, prepared.unsupported)
    await enforce_limits(responder, services, caller)
    if prepared.encoder is not None:
        frames = TurnFrames(prepared.encoder, prepared.wait)
        return EventStream(frames, _opened(frames, prepared), services.timing)
    async with prepared.block as turn:
        answer = await whole_answer(turn, partial(commit_answer, turn, prepared.head), prepared.suggest)
        body = form.whole(prepared.head, answer, turn.ids)
        return JsonAnswer(body, turn_headers(turn.ids, prepared.wait))


def prepare_answer(
    services: Services,
    caller: Caller,
    app: App,
    fields: CompletionFields,
    turn_request: TurnRequest,
    *,
    form: AnswerForm,
    client: Client,
    address: Address,
) -> PreparedAnswer:
    """Return the turn of a request to ``app``. Nothing has an effect before its block begins."""
    unsuggested = unsupported_questions(services, app, fields) if fields.suggested_questions else ()
    ignored = services.turns.ignored(app, turn_request.output, turn_request)
    head = answer_head(form.kind, fields.model or app.name, turn_request)
    streamed = bool(fields.stream)
    wait = services.turns.wait(streamed=streamed, in_background=turn_request.side_call is not None)
    return PreparedAnswer(
        services.turns.run(caller, app, turn_request, client=client, wait=wait, streamed=streamed, address=address),
        head,
        wait,
        (*turn_request.unsupported, *unsuggested, *ignored),
        form.stream(head, include_usage=fields.wants_usage) if streamed else None,
        services.turns.suggested_questions if fields.suggested_questions else None,
    )


@asynccontextmanager
async def _opened(frames: TurnFrames, prepared: PreparedAnswer) -> AsyncIterator[None]:
    async with prepared.block as turn:
        frames.begin(turn, partial(commit_answer, turn, prepared.head), prepared.suggest)
        yield


async def commit_answer(turn: ActiveTurn, head: AnswerHead, answer: Answer, reply: HistoryMessage) -> None:
    """Commit a turn that has succeeded, with the reply as the client will send it back."""
    if answer.error is None:
        await turn.commit(legacy_reply(reply) if head.legacy_functions else reply)


def fold(events: list[Event]) -> Answer:
    """Return the answer that the events add up to."""
    answer = Answer()
    answer.add(events)
    return answer


def unsupported_questions(services: Services, app: App, fields: CompletionFields) -> Sequence[str]:
    """Return the field that requests suggested questions if the app is known to suggest none."""
    suggests = services.turns.suggests_questions(app)
    return ("suggested_questions",) if fields.suggested_questions and suggests is False else ()


async def whole_answer(turn: ActiveTurn, at_end: AtEnd, suggest: Suggest | None = None) -> Answer:
    """Run the turn to completion and return the folded answer. Raises ProxyError and ClientDisconnected."""
    answer = Answer()
    try:
        async for events in turn:
            answer.add(events)
        if suggest is not None and answer.finish_reason == "stop":
            answer.suggested_questions = await suggest(turn)
        await at_end(answer, answer.reply)
    except asyncio.CancelledError:
        raise shutting_down() from None
    if answer.error is not None:
        raise answer.error
    return answer


def turn_headers(ids: TurnIds, wait: TurnWait) -> RawHeaders:
    """Return the headers of a turn's answer: Dify's ids, as far as they are known, and the place in the queue."""
    headers = []
    if ids.conversation_id:
        headers.append((b"x-dify-conversation-id", ids.conversation_id.encode()))
    if ids.message_id:
        headers.append((b"x-dify-message-id", ids.message_id.encode()))
    if wait.queued_at is not None:
        headers += queue_headers(wait)
    return headers


def queue_headers(wait: TurnWait) -> RawHeaders:
    """Return the position at which a turn entered the queue, if it had to wait."""
    return [] if wait.queued_at is None else [(b"x-queue-position", b"%d" % wait.queued_at)]


class TurnFrames:
    """The ``FrameSource`` of a turn, which ``begin`` opens."""

    def __init__(self, encoder: StreamEncoder, wait: TurnWait) -> None:
        self.ended = False
        self._encoder = encoder
        self._wait = wait
        self._turn: ActiveTurn | None = None
        self._at_end: AtEnd | None = None
        self._suggest: Suggest | None = None
        self._started = False
        self._last: list[Event] = []

    def begin(self, turn: ActiveTurn, at_end: AtEnd, suggest: Suggest | None = None) -> None:
        """Read the frames of ``turn``; ``at_end`` commits it."""
        self._turn = turn
        self._suggest = suggest
        self._stream = turn.stream
        self._at_end = at_end

    @property
    def between_runs(self) -> bool:
        """Whether ``settle`` starts another run of the turn."""
        return self._stream.between_runs

    @property
    def task_id(self) -> str | None:
        return self._ids.task_id

    @property
    def _ids(self) -> TurnIds:
        return TurnIds() if self._turn is None else self._turn.ids

    def headers(self) -> RawHeaders:
        return turn_headers(self._ids, self._wait)

    def opening(self) -> bytes:
        self._started = True
        return self._encoder.open(self._ids)

    def heartbeat(self) -> bytes:
        return self._encoder.heartbeat()

    def failure(self, error: ProxyError) -> bytes:
        return self._encoder.encode([TurnFailed(error)], self._ids)

    def listen(self, listener: Callable[[], None]) -> None:
        self._stream.listen(listener)

    def pause(self) -> None:
        self._stream.pause()

    def resume(self) -> None:
        self._stream.resume()

    def poll(self) -> bytes | None:
        stream = self._stream
        events = stream.poll()
        if stream.ended:
            self._last = events
            return None
        if not events:
            return None if stream.between_runs else b""
        frames = self._encoder.encode(events, stream.ids)
        self._started = self._started or bool(frames)
        return frames

    async def settle(self) -> bytes:
        stream = self._stream
        if stream.between_runs:
            self._last = await stream.begin_next_run()
        if stream.ended:
            return await self._end(self._last)
        frames = self._encoder.encode(self._last, stream.ids)
        self._started = self._started or bool(frames)
        return frames

    async def _end(self, events: list[Event]) -> bytes:
        """Encode the last events; ``at_end`` commits the turn before they are returned."""
        encoder, ids, at_end = self._encoder, self._ids, self._at_end
        assert at_end is not None
        self.ended = True
        last = events.pop() if events else None
        frames = encoder.encode(events, ids)
        if isinstance(last, TurnFailed) and not self._started and not frames:
            encoder.answer.add_one(last)
            await at_end(encoder.answer, encoder.reply)
            raise last.error
        if self._suggest is not None and isinstance(last, TurnFinished) and last.reason == "stop":
            assert self._turn is not None
            encoder.answer.suggested_questions = await self._suggest(self._turn)
        if last is not None:
            frames += encoder.encode((last,), ids)
            await at_end(encoder.answer, encoder.reply)
        return frames
