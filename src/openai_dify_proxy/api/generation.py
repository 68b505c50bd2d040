"""What the endpoints of generated text share: from a parsed request to the response that reads the turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.services import Services
from openai_dify_proxy.api.streaming import ClientWatch, TurnStream, stream_response, turn_headers, whole_answer
from openai_dify_proxy.events import TurnIds
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.chat_answers import AnswerHead
from openai_dify_proxy.translate.openai.chat_streams import StreamEncoder
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.chat import CompletionFields

EncodeAnswer = Callable[[AnswerHead, Answer, TurnIds], bytes]


class EncodeStream(Protocol):
    def __call__(self, head: AnswerHead, *, include_usage: bool) -> StreamEncoder: ...


async def answer_turn(
    request: Request,
    proxy: Services,
    caller: Caller,
    fields: CompletionFields,
    turn_request: TurnRequest,
    *,
    kind: str,
    stream: EncodeStream,
    whole: EncodeAnswer,
) -> Response:
    """Asks Dify and answers, streamed or whole. ``kind`` is the prefix of the answer's id.

    The client is watched from the moment its request has been read: one that leaves before Dify was asked costs
    nothing.
    """
    turn_request = proxy.with_headers(turn_request, request, caller)
    task = proxy.tasks.recognise(turn_request)
    if (events := proxy.tasks.answer(task)) is not None:
        app = proxy.apps.choose(caller, fields.model)
        head = proxy.head(kind, fields.model or app.name)
        if fields.stream:
            frames = stream(head, include_usage=fields.wants_usage).encode(events, TurnIds())
            return stream_response(frames)
        canned = Answer()
        canned.add(events)
        return Response(whole(head, canned, TurnIds()), media_type="application/json")
    watch = ClientWatch(request.receive)
    try:
        model, turn_request = proxy.tasks.route(task, fields.model, turn_request)
        running = await proxy.turns.begin(caller, model, turn_request, gone=lambda: watch.gone)
    except BaseException:
        watch.stop()
        raise

    async def remember(answer: Answer, sent: str) -> None:
        if answer.error is None:
            running.thread.extend(sent)
            await proxy.turns.keep(running)

    head = proxy.head(kind, fields.model or running.model)
    if fields.stream:
        encoder = stream(head, include_usage=fields.wants_usage)
        return TurnStream(proxy.turns, running, watch, encoder, pulse=proxy.pulse, at_end=remember)
    answer = await whole_answer(proxy.turns, running, watch, remember)
    ids = running.turn.ids
    return Response(whole(head, answer, ids), 200, turn_headers(ids), "application/json")
