"""``/v1/responses``: created over the same turns as chats, and kept for those who ask for them later."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct, json, structs
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.answering import ClientWatch, TurnStream, stream_response, turn_headers, whole_answer
from openai_dify_proxy.api.proxy import Proxy, proxy_of
from openai_dify_proxy.api.requests import read_json
from openai_dify_proxy.errors import InvalidRequest, ResponseNotFound
from openai_dify_proxy.events import Event, TurnIds
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.conversation_items import page
from openai_dify_proxy.translate.responses_answers import begin_response, response_object, status_of
from openai_dify_proxy.translate.responses_items import read_input_items, text_of_response
from openai_dify_proxy.translate.responses_request import read_responses_request, referenced_responses
from openai_dify_proxy.translate.responses_streams import ResponsesStreamEncoder
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.background import RUNNING
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.kept import KeptResponse
from openai_dify_proxy.turns.service import Running
from openai_dify_proxy.turns.sources import Source
from openai_dify_proxy.wire.openai.responses import RESPONSE, RESPONSES_REQUEST, ResponsesRequest


class Deleted(Struct):
    id: str
    object: str = "response"
    deleted: bool = True


async def create_response(request: Request) -> Response:
    """A response, streamed, whole, or in the background."""
    proxy = proxy_of(request)
    caller = proxy.gate.admit(request)
    data = await proxy.gate.read_body(request)
    body = read_json(data, RESPONSES_REQUEST)
    replies = await _referenced(proxy, caller, body)
    turn_request = proxy.with_headers(read_responses_request(body, replies), request, caller)
    task = None if body.previous_response_id or body.conversation else proxy.tasks.recognise(turn_request)
    if (events := proxy.tasks.answer(task)) is not None:
        return _without_dify(proxy, caller, body, events)
    watch = ClientWatch(request.receive)
    try:
        model, turn_request = proxy.tasks.route(task, body.model, turn_request)
        source = await _source(proxy, caller, body, turn_request, watch)
        running = await proxy.turns.begin(
            caller, model, source.request, gone=lambda: watch.gone, recall=source.recall, lock=source.lock
        )
    except BaseException:
        watch.stop()
        raise
    name = proxy.kept.responses.new_name()
    begun = begin_response(body, id=name, created_at=_now(), model=body.model or running.model)
    keeper = _Keeper(proxy, caller, running, source, ResponsesStreamEncoder(begun, now=_now), data=data)
    if body.background:
        watch.stop()
        return await _in_background(request, keeper, streamed=bool(body.stream))
    if body.stream:
        return TurnStream(proxy.turns, running, watch, keeper.encoder, pulse=proxy.pulse, at_end=keeper.at_end)
    await whole_answer(proxy.turns, running, watch, keeper.at_end)
    return Response(json.encode(keeper.response), 200, turn_headers(running.turn.ids), "application/json")


async def retrieve_response(request: Request) -> Response:
    """A stored response; with ``?stream=true`` its events, those that are still to come too."""
    proxy = proxy_of(request)
    caller = proxy.gate.admit(request)
    name = request.path_params["response_id"]
    entry = await proxy.background.load(caller, name, proxy.end_user(request, caller))
    if request.query_params.get("stream") != "true":
        return Response(entry.response, 200, media_type="application/json")
    if not RESPONSE.decode(entry.response).background:
        raise InvalidRequest(
            "Only a response that was made in the background can be streamed again. Fetch it without stream.",
            param="stream",
        )
    return _followed(proxy, caller, name, _starting_after(request))


async def delete_response(request: Request) -> Response:
    proxy = proxy_of(request)
    caller = proxy.gate.admit(request)
    name = request.path_params["response_id"]
    entry = await proxy.background.load(caller, name, proxy.end_user(request, caller))
    if RESPONSE.decode(entry.response).status in RUNNING:
        await proxy.background.cancel(caller, name, entry)
    await proxy.kept.responses.remove(caller, name)
    return Response(json.encode(Deleted(name)), 200, media_type="application/json")


async def cancel_response(request: Request) -> Response:
    """Ends a response that runs in the background; one that was cancelled already is told once more."""
    proxy = proxy_of(request)
    caller = proxy.gate.admit(request)
    name = request.path_params["response_id"]
    entry = await proxy.background.load(caller, name, proxy.end_user(request, caller))
    response = RESPONSE.decode(entry.response)
    if not response.background:
        raise InvalidRequest("Only a response that was made in the background can be cancelled.", param="response_id")
    if response.status in RUNNING:
        response = await proxy.background.cancel(caller, name, entry)
    if response.status != "cancelled":
        raise InvalidRequest(f"The response cannot be cancelled: it is {response.status}.", param="response_id")
    return Response(json.encode(response), 200, media_type="application/json")


async def list_input_items(request: Request) -> Response:
    proxy = proxy_of(request)
    caller = proxy.gate.admit(request)
    name = request.path_params["response_id"]
    entry = await proxy.background.load(caller, name, proxy.end_user(request, caller))
    query = request.query_params
    items = page(json.decode(entry.input), after=query.get("after"), limit=query.get("limit"), order=query.get("order"))
    return Response(json.encode(items), 200, media_type="application/json")


async def _source(
    proxy: Proxy, caller: Caller, body: ResponsesRequest, turn_request: TurnRequest, watch: ClientWatch
) -> Source:
    if body.previous_response_id is not None:
        return await proxy.sources.of_response(caller, turn_request, body.previous_response_id)
    if body.conversation_name is not None:
        return await proxy.sources.of_conversation(
            caller, body.model, turn_request, body.conversation_name, lambda: watch.gone
        )
    return Source(turn_request)


async def _referenced(proxy: Proxy, caller: Caller, body: ResponsesRequest) -> dict[str, str]:
    """What the responses said whose messages the input only refers to."""
    texts = {}
    for name in referenced_responses(body):
        try:
            texts[name] = text_of_response((await proxy.kept.responses.load(caller, name, None)).response)
        except ResponseNotFound:
            continue  # the reader of the input refuses it by its place there
    return texts


def _without_dify(proxy: Proxy, caller: Caller, body: ResponsesRequest, events: Sequence[Event]) -> Response:
    """A response that says nothing to speak of, and is not kept."""
    model = body.model or proxy.apps.choose(caller, body.model).name
    encoder = ResponsesStreamEncoder(
        begin_response(body, id=proxy.kept.responses.new_name(), created_at=_now(), model=model), now=_now
    )
    frames = encoder.encode(events, TurnIds())
    if body.stream:
        return stream_response(frames)
    return Response(json.encode(encoder.response), media_type="application/json")


async def _in_background(request: Request, keeper: _Keeper, *, streamed: bool) -> Response:
    proxy, caller = keeper.proxy, keeper.caller
    begun = await proxy.background.start(caller, keeper.running, keeper.encoder, await keeper.entry(), keeper.completed)
    if streamed:
        return _followed(proxy, caller, begun.id, None)
    return Response(json.encode(begun), 200, media_type="application/json")


def _followed(proxy: Proxy, caller: Caller, name: str, starting_after: int | None) -> Response:
    """The response runs on, whether or not anybody reads this stream."""

    beat = proxy.pulse.interval if proxy.pulse.kind != "off" else None
    frames = proxy.background.follow(caller, name, starting_after=starting_after, beat=beat)
    return stream_response(frames)


def _starting_after(request: Request) -> int | None:
    given = request.query_params.get("starting_after")
    if given is None:
        return None
    if not given.isdecimal():
        raise InvalidRequest("starting_after must be the sequence_number of an event.", param="starting_after")
    return int(given)


def _now() -> int:
    return int(time.time())


class _Keeper:
    """Keeps what became of a response, as far as the request wants that."""

    def __init__(
        self,
        proxy: Proxy,
        caller: Caller,
        running: Running,
        source: Source,
        encoder: ResponsesStreamEncoder,
        *,
        data: bytes,
    ) -> None:
        self.proxy = proxy
        self.caller = caller
        self.running = running
        self.encoder = encoder
        self.response = encoder.response
        self._source = source
        self._data = data
        self._sent = ""

    async def at_end(self, answer: Answer, sent: str) -> None:
        """The turn ended; a streamed one has its last object already."""
        begun, streamed = self.encoder.response, self.encoder.answer is answer
        if streamed:
            self.response = begun
        elif answer.error is None:
            self.response = response_object(
                begun, answer, self.running.turn.ids, status=status_of(answer), completed_at=_now()
            )
        if answer.error is None:
            self._sent = sent
            self.running.thread.extend(sent)
            await self.proxy.turns.keep(self.running, await self._operations())
        elif self.response.status == "failed" and self.response.store:
            await self.proxy.kept.responses.put(self.caller, self.response.id, await self.entry())

    async def entry(self) -> KeptResponse:
        """What is kept of a response, whatever becomes of it."""
        return KeptResponse(
            json.encode(self.response),
            json.encode(read_input_items(self._data, self.response.id)),
            end_user=await self.proxy.kept.responses.end_user_of(self._source.request.end_user),
            previous=self._source.previous,
        )

    def completed(self, entry: KeptResponse, sent: str) -> KeptResponse:
        """What the next response needs to go on from this one. To be asked after ``thread.extend``."""
        thread = self.running.thread
        said = [*self._source.request.asked, HistoryMessage("assistant", sent)]
        return structs.replace(entry, said=said, scope=thread.scope, link=thread.link or b"")

    async def _operations(self) -> list[Operation]:
        operations = []
        kept, name = self.proxy.kept, self.response.id
        if self.response.store:
            entry = self.completed(await self.entry(), self._sent)
            operations.append(await kept.responses.putting(self.caller, name, entry))
        if self._source.conversation is not None:
            conversation, before = self._source.conversation
            turn = self.running.turn
            after = structs.replace(
                before,
                dify_id=turn.ids.conversation_id,
                model=self.response.model,
                user=turn.user,
                last=name if self.response.store else before.last,
            )
            operations.append(await kept.conversations.putting(self.caller, conversation, after))
        return operations
