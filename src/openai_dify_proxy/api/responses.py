"""``/v1/responses``. Responses are created by the same turns as chats, and stored for later retrieval."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from msgspec import Struct, json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from openai_dify_proxy.api.bodies import hold_memory, json_response, read_json
from openai_dify_proxy.api.generation import (
    Suggest,
    TurnFrames,
    turn_headers,
    unsupported_questions,
    whole_answer,
)
from openai_dify_proxy.api.limits import enforce_limits
from openai_dify_proxy.api.notices import add_notice
from openai_dify_proxy.api.responder import JsonAnswer, record_of, responder_of
from openai_dify_proxy.api.response_requests import read_response_request
from openai_dify_proxy.api.services import Services, address_of, identity_of, services_of
from openai_dify_proxy.api.stored_streams import StoredStream
from openai_dify_proxy.api.streaming import EventStream, sse_response
from openai_dify_proxy.errors import InvalidRequest, StateUnreachable
from openai_dify_proxy.events import Event, TurnIds
from openai_dify_proxy.files.artifacts.service import Address
from openai_dify_proxy.responses.background import RUNNING
from openai_dify_proxy.responses.background_run import Prepare
from openai_dify_proxy.responses.recorder import ResponseRecorder
from openai_dify_proxy.responses.response_store import StoredResponse
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.openai.chat_request import end_user_of, make_turn
from openai_dify_proxy.translate.openai.conversation_items import page, whole_number
from openai_dify_proxy.translate.openai.responses_answers import begin_response, response_object, status_of
from openai_dify_proxy.translate.openai.responses_items import body_without_files
from openai_dify_proxy.translate.openai.responses_request import check_storable
from openai_dify_proxy.translate.openai.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.translate.openai.tool_request import RequestedOutput
from openai_dify_proxy.translate.turn_request import HistoryMessage, RequestIdentity, TurnMessages, TurnRequest
from openai_dify_proxy.translate.usage_estimates import prompt_characters
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.client import Client
from openai_dify_proxy.turns.large_requests import run_sized
from openai_dify_proxy.wire.openai.responses import RESPONSES_REQUEST, ResponsesRequest
from openai_dify_proxy.wire.openai.responses import Response as ResponseObject


class ResponseDeleted(Struct):
    id: str
    object: str = "response"
    deleted: bool = True


async def create_response(request: Request) -> ASGIApp:
    """Create a response, streamed, whole, or in the background."""
    services = services_of(request)
    caller = await services.admit(request)
    data = bytes(await services.bodies.read(request))
    body = await run_sized(partial(read_json, data, RESPONSES_REQUEST), len(data))
    identity = identity_of(request, caller)
    messages, requested = await read_response_request(services, caller, identity, body, len(data))
    if messages.contents is not None:
        data = await run_sized(partial(body_without_files, data), len(data))
        hold_memory(request, messages.contents)
    check_storable(body, len(data))
    body.input, body.messages = None, None  # the messages have their texts and files
    continues = body.previous_response_id is not None or body.conversation_name is not None
    turn_request = None if continues else make_turn(body, messages, identity, requested=requested)
    side_call = None if turn_request is None else turn_request.side_call
    response_id, model = services.stored.responses.new_id(), body.model or services.apps.choose(caller, None).name
    initial = begin_response(body, id=response_id, created_at=_now(), model=model)
    encoder = ResponsesStreamEncoder(initial, now=_now, prompt_characters=prompt_characters(messages))
    if (events := services.side_calls.placeholder(side_call)) is not None:
        services.apps.choose(caller, body.model)  # rejects unknown models here too
        return _placeholder(encoder, events, streamed=bool(body.stream))
    record = record_of(request.scope)
    record.model = body.model
    app = services.side_calls.app(caller, side_call, body.model)
    unsuggested = unsupported_questions(services, app, body)
    has_files = messages.contents is not None or bool(body.files)
    preview = turn_request or (make_turn(body, messages, identity, requested=requested) if has_files else None)
    ignored = services.turns.ignored(app, requested.output, preview)
    add_notice(responder_of(request.scope), (*requested.unsupported, *unsuggested, *ignored))
    await enforce_limits(responder_of(request.scope), services, caller)
    suggest = services.turns.suggested_questions if body.suggested_questions else None
    wait = services.turns.wait(
        streamed=bool(body.stream or body.background), in_background=bool(body.background) or side_call is not None
    )
    new = _NewResponse(caller, data, body, messages, requested, identity, turn_request, address_of(request.scope))
    prepare = partial(_prepared, services, app, new, wait)
    if body.background:
        recorder = await _accepted(services, app, new, wait)
        await services.background.start(caller, recorder, prepare, encoder, cause=record.trace)
        return _followed(services, encoder.response, None) if body.stream else json_response(encoder.response)
    if body.stream:
        frames = TurnFrames(encoder, wait)
        return EventStream(frames, _opened(frames, request, prepare, encoder, suggest), services.timing)
    return await _whole(request, prepare, encoder, wait, suggest)


async def retrieve_response(request: Request) -> Response:
    """Return a stored response; with ``?stream=true``, its past and future events."""
    services, _, entry, response = await _load(request)
    if request.query_params.get("stream") != "true":
        return Response(entry.response, 200, media_type="application/json")
    if not response.background:
        raise InvalidRequest(
            "Only background responses can be streamed again. Retrieve this response without 'stream'.",
            param="stream",
        )
    return _followed(services, response, _starting_after(request))


async def delete_response(request: Request) -> Response:
    """Delete a response; cancel it first if it is still running."""
    services, caller, _, response = await _load(request)
    if response.status in RUNNING:
        await services.background.cancel(caller, response)
    await services.background.remove(caller, response)
    return json_response(ResponseDeleted(response.id))


async def cancel_response(request: Request) -> Response:
    """Cancel a background response. Cancelling twice is idempotent."""
    services, caller, _, response = await _load(request)
    if not response.background:
        raise InvalidRequest(
            "Only background responses can be cancelled. To stop another one, close its connection.",
            param="response_id",
        )
    if response.status in RUNNING:
        response = await services.background.cancel(caller, response)
    if response.status != "cancelled":
        raise InvalidRequest(f"The response cannot be cancelled because it is {response.status}.", param="response_id")
    return json_response(response)


async def list_input_items(request: Request) -> Response:
    services, _, entry, response = await _load(request)
    query = request.query_params
    items = services.stored.input_of(response.id, entry)
    return json_response(page(items, after=query.get("after"), limit=query.get("limit"), order=query.get("order")))


async def _load(request: Request) -> tuple[Services, Caller, StoredResponse, ResponseObject]:
    """Load the response that the path names, and decode its object."""
    services = services_of(request)
    caller = services.authenticator.admit(request)
    name = request.path_params["response_id"]
    entry = await services.background.load(caller, name, identity_of(request, caller).end_user)
    return services, caller, entry, services.stored.response_of(name, entry)


class _NewResponse(Struct, frozen=True):
    """A request for a response. ``turn_request`` is None if it depends on the response or conversation continued."""

    caller: Caller
    data: bytes
    body: ResponsesRequest
    messages: TurnMessages
    requested: RequestedOutput
    identity: RequestIdentity
    turn_request: TurnRequest | None
    address: Address


async def _accepted(services: Services, app: App, new: _NewResponse, wait: TurnWait) -> ResponseRecorder:
    """Return the recorder of a response in the background that has no turn yet.

    Raises the errors of an invalid request, and QueueFull.
    """
    caller, body = new.caller, new.body
    end_user = end_user_of(body, new.identity)
    continued = await services.continuations.preview(
        caller, end_user=end_user, previous=body.previous_response_id, conversation=body.conversation_name
    )
    turn_request = new.turn_request or make_turn(body, new.messages, new.identity, continued.history, new.requested)
    await services.turns.check(caller, app, turn_request, wait=wait)
    return ResponseRecorder(services.stored, caller, turn_request, continued, body=new.data)


@asynccontextmanager
async def _prepared(
    services: Services, app: App, new: _NewResponse, wait: TurnWait, client: Client
) -> AsyncIterator[tuple[ResponseRecorder, ActiveTurn]]:
    """Wait for a slot, send the request to Dify, and yield the recorder of the response and its turn."""
    caller, body = new.caller, new.body
    end_user = end_user_of(body, new.identity)
    admitted = services.turns.admit(caller, app, end_user, client=client, wait=wait, request=new.turn_request)
    async with (
        admitted as admittance,
        services.continuations.resolve(
            caller,
            app,
            admittance,
            end_user=end_user,
            history=new.messages.history,
            previous=body.previous_response_id,
            conversation=body.conversation_name,
        ) as continued,
    ):
        turn_request = new.turn_request or make_turn(body, new.messages, new.identity, continued.history, new.requested)
        recorder = ResponseRecorder(services.stored, caller, turn_request, continued, body=new.data)
        recall, lock = continued.recall, continued.lock
        turn = services.turns.run(
            caller,
            app,
            turn_request,
            client=client,
            recall=recall,
            lock=lock,
            admittance=admittance,
            streamed=bool(body.stream),
            address=new.address,
        )
        async with turn as active:
            yield recorder, active


@asynccontextmanager
async def _opened(
    frames: TurnFrames,
    request: Request,
    prepare: Prepare,
    encoder: ResponsesStreamEncoder,
    suggest: Suggest | None,
) -> AsyncIterator[None]:
    async with prepare(responder_of(request.scope)) as (recorder, turn):
        frames.begin(turn, _ResponseEnding(turn, recorder, encoder).record, suggest)
        yield


async def _whole(
    request: Request, prepare: Prepare, encoder: ResponsesStreamEncoder, wait: TurnWait, suggest: Suggest | None
) -> ASGIApp:
    async with prepare(responder_of(request.scope)) as (recorder, turn):
        ending = _ResponseEnding(turn, recorder, encoder)
        await whole_answer(turn, ending.record, suggest)
        return JsonAnswer(json.encode(ending.response), turn_headers(turn.ids, wait))


def _placeholder(encoder: ResponsesStreamEncoder, events: Sequence[Event], *, streamed: bool) -> Response:
    """Return a placeholder response. It is not stored."""
    frames = encoder.encode(events, TurnIds())
    return sse_response(frames) if streamed else json_response(encoder.response)


def _followed(services: Services, response: ResponseObject, starting_after: int | None) -> Response:
    """Return the events of a background response, which does not stop when this stream is closed."""
    timing = services.timing
    portions = services.background.follow(response, starting_after=starting_after, beat=timing.beat)
    return StoredStream(portions, write_timeout=timing.write_timeout)


def _starting_after(request: Request) -> int | None:
    value = request.query_params.get("starting_after")
    if value is None:
        return None
    if (number := whole_number(value)) is None:
        raise InvalidRequest(
            "starting_after must be a whole number, the sequence_number of an event.", param="starting_after"
        )
    return number


def _now() -> int:
    return int(time.time())


class _ResponseEnding:
    """The end of a response in the foreground. ``response`` is the final object after ``record``."""

    def __init__(self, turn: ActiveTurn, recorder: ResponseRecorder, encoder: ResponsesStreamEncoder) -> None:
        self.response = encoder.response
        self._turn = turn
        self._recorder = recorder
        self._encoder = encoder

    async def record(self, answer: Answer, reply: HistoryMessage) -> None:
        """Store the ended turn. The encoder of a stream has built the final object already."""
        turn, recorder = self._turn, self._recorder
        if self._encoder.answer is answer:
            self.response = self._encoder.response
        elif answer.error is None:
            self.response = response_object(
                self.response,
                answer,
                turn.ids,
                status=status_of(answer),
                completed_at=_now(),
                prompt_characters=self._encoder.prompt_characters,
            )
        operations: list[Operation] = []
        with suppress(StateUnreachable):  # the client still gets its answer
            if answer.error is None:
                operations += await recorder.put_finished(turn, self.response, reply)
                operations += await recorder.put_conversation(turn, self.response, reply)
            elif self.response.status == "failed":
                operations += await recorder.put_failed(self.response)
        if answer.error is None:
            await turn.commit(reply, operations)
        elif operations:
            await recorder.run(operations)
