"""``/v1/responses``: created over the same turns as chats, and kept for those who ask for them later."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct, json
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.authentication import read_json
from openai_dify_proxy.api.services import Services, services_of
from openai_dify_proxy.api.streaming import (
    ClientWatch,
    TurnStream,
    json_response,
    stream_response,
    turn_headers,
    whole_answer,
)
from openai_dify_proxy.errors import InvalidRequest, ResponseNotFound, StateUnreachable
from openai_dify_proxy.events import Event, TurnIds
from openai_dify_proxy.responses.background import RUNNING
from openai_dify_proxy.responses.continuation import ContinuedRequest
from openai_dify_proxy.responses.recorder import ResponseRecorder
from openai_dify_proxy.responses.response_store import StoredResponse
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.conversation_items import page, whole_number
from openai_dify_proxy.translate.openai.responses_answers import begin_response, response_object, status_of
from openai_dify_proxy.translate.openai.responses_items import text_of_response
from openai_dify_proxy.translate.openai.responses_request import read_responses_request, referenced_responses
from openai_dify_proxy.translate.openai.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.service import ActiveTurn, Turns
from openai_dify_proxy.wire.openai.responses import RESPONSE, RESPONSES_REQUEST, ResponsesRequest
from openai_dify_proxy.wire.openai.responses import Response as Begun


class ResponseDeleted(Struct):
    id: str
    object: str = "response"
    deleted: bool = True


async def create_response(request: Request) -> Response:
    """A response, streamed, whole, or in the background."""
    proxy = services_of(request)
    caller = proxy.gate.admit(request)
    data = await proxy.gate.read_body(request)
    body = read_json(data, RESPONSES_REQUEST)
    replies = await _referenced(proxy, request, caller, body)
    turn_request = proxy.with_headers(read_responses_request(body, replies), request, caller)
    task = None if body.previous_response_id or body.conversation else proxy.tasks.recognise(turn_request)
    name, model = proxy.kept.responses.new_name(), body.model or proxy.apps.choose(caller, None).name
    encoder = ResponsesStreamEncoder(begin_response(body, id=name, created_at=_now(), model=model), now=_now)
    if (events := proxy.tasks.answer(task)) is not None:
        proxy.apps.choose(caller, body.model)  # there must be such a model all the same
        return _without_dify(encoder, events, streamed=bool(body.stream))
    watch = ClientWatch(request.receive)
    try:
        asked_model, turn_request = proxy.tasks.route(task, body.model, turn_request)
        source = await _source(proxy, caller, body, turn_request, watch)
        keeper = ResponseRecorder(proxy.kept, caller, source, data)
        running = await _begin(proxy, asked_model, keeper, encoder.response, watch)
    except BaseException:
        watch.stop()
        raise
    if body.background:
        watch.stop()
        proxy.background.start(keeper, running, encoder)
        return _followed(proxy, encoder.response, None) if body.stream else json_response(encoder.response)
    ending = _ResponseEnding(proxy.turns, running, keeper, encoder)
    if body.stream:
        return TurnStream(proxy.turns, running, watch, encoder, pulse=proxy.pulse, at_end=ending.keep)
    await whole_answer(proxy.turns, running, watch, ending.keep)
    return Response(json.encode(ending.response), 200, turn_headers(running.turn.ids), "application/json")


async def retrieve_response(request: Request) -> Response:
    """A stored response; with ``?stream=true`` its events, those that are still to come too."""
    proxy, _, entry = await _load(request)
    if request.query_params.get("stream") != "true":
        return Response(entry.response, 200, media_type="application/json")
    response = RESPONSE.decode(entry.response)
    if not response.background:
        raise InvalidRequest(
            "Only a response that was made in the background can be streamed again. Fetch it without stream.",
            param="stream",
        )
    return _followed(proxy, response, _starting_after(request))


async def delete_response(request: Request) -> Response:
    """Forgets a response. One that still runs is cancelled before."""
    proxy, caller, entry = await _load(request)
    response = RESPONSE.decode(entry.response)
    if response.status in RUNNING:
        await proxy.background.cancel(caller, response)
    await proxy.background.remove(caller, response)
    return json_response(ResponseDeleted(response.id))


async def cancel_response(request: Request) -> Response:
    """Ends a response that runs in the background; one that was cancelled already is told once more."""
    proxy, caller, entry = await _load(request)
    response = RESPONSE.decode(entry.response)
    if not response.background:
        raise InvalidRequest("Only a response that was made in the background can be cancelled.", param="response_id")
    if response.status in RUNNING:
        response = await proxy.background.cancel(caller, response)
    if response.status != "cancelled":
        raise InvalidRequest(f"The response cannot be cancelled: it is {response.status}.", param="response_id")
    return json_response(response)


async def list_input_items(request: Request) -> Response:
    _, _, entry = await _load(request)
    query = request.query_params
    items = json.decode(entry.input)
    return json_response(page(items, after=query.get("after"), limit=query.get("limit"), order=query.get("order")))


async def _load(request: Request) -> tuple[Services, Caller, StoredResponse]:
    """The response that the path names."""
    proxy = services_of(request)
    caller = proxy.gate.admit(request)
    name = request.path_params["response_id"]
    return proxy, caller, await proxy.background.load(caller, name, proxy.end_user(request, caller))


async def _begin(
    proxy: Services, model: str | None, keeper: ResponseRecorder, begun: Begun, watch: ClientWatch
) -> ActiveTurn:
    """Asks Dify. A response in the background is kept before: one that cannot be found again must not run."""
    source = keeper.source
    try:
        if begun.background:
            await proxy.background.reserve(keeper, begun)
        return await proxy.turns.begin(
            keeper.caller, model, source.request, gone=lambda: watch.gone, recall=source.recall, lock=source.lock
        )
    except BaseException:
        if source.lock is not None:
            await source.lock.release()
        if begun.background:
            await proxy.background.drop(keeper, begun)
        raise


async def _source(
    proxy: Services, caller: Caller, body: ResponsesRequest, turn_request: TurnRequest, watch: ClientWatch
) -> ContinuedRequest:
    if body.previous_response_id is not None:
        return await proxy.sources.of_response(caller, turn_request, body.previous_response_id)
    if body.conversation_name is not None:
        return await proxy.sources.of_conversation(
            caller, body.model, turn_request, body.conversation_name, lambda: watch.gone
        )
    return ContinuedRequest(turn_request)


async def _referenced(proxy: Services, request: Request, caller: Caller, body: ResponsesRequest) -> dict[str, str]:
    """What the responses said whose messages the input only refers to."""
    end_user = proxy.end_user(request, caller) or body.safety_identifier or body.user
    texts = {}
    for name in referenced_responses(body):
        with suppress(ResponseNotFound):  # the reader of the input refuses it by its place there
            entry = await proxy.kept.responses.load(caller, name, end_user, strictly=True)
            texts[name] = text_of_response(entry.response)
    return texts


def _without_dify(encoder: ResponsesStreamEncoder, events: Sequence[Event], *, streamed: bool) -> Response:
    """A response that says nothing to speak of, and is not kept."""
    frames = encoder.encode(events, TurnIds())
    return stream_response(frames) if streamed else json_response(encoder.response)


def _followed(proxy: Services, response: Begun, starting_after: int | None) -> Response:
    """The response runs on, whether or not anybody reads this stream."""
    beat = proxy.pulse.interval if proxy.pulse.kind != "off" else None
    return stream_response(proxy.background.follow(response, starting_after=starting_after, beat=beat))


def _starting_after(request: Request) -> int | None:
    given = request.query_params.get("starting_after")
    if given is None:
        return None
    if (number := whole_number(given)) is None:
        raise InvalidRequest("starting_after must be the sequence_number of an event.", param="starting_after")
    return number


def _now() -> int:
    return int(time.time())


class _ResponseEnding:
    """What becomes of a response whose client waits for it: ``response``, once ``keep`` was called."""

    def __init__(
        self, turns: Turns, running: ActiveTurn, keeper: ResponseRecorder, encoder: ResponsesStreamEncoder
    ) -> None:
        self.response = encoder.response
        self._turns = turns
        self._running = running
        self._keeper = keeper
        self._encoder = encoder

    async def keep(self, answer: Answer, sent: str) -> None:
        """The turn ended; a streamed one has its last object already."""
        running, keeper = self._running, self._keeper
        if self._encoder.answer is answer:
            self.response = self._encoder.response
        elif answer.error is None:
            self.response = response_object(
                self.response, answer, running.turn.ids, status=status_of(answer), completed_at=_now()
            )
        operations: list[Operation] = []
        with suppress(StateUnreachable):  # then it is answered, but not kept
            if answer.error is None:
                running.thread.extend(sent)
                operations += await keeper.finished(running, self.response, sent)
                operations += await keeper.went_on(running, self.response, sent)
            elif self.response.status == "failed":
                operations += await keeper.failed(self.response)
        if answer.error is None:
            await self._turns.keep(running, operations)
        elif operations:
            await keeper.do(operations)
