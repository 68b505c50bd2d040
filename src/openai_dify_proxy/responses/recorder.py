"""Stores a response: its object, its messages for the next response, and the conversation after it."""

from __future__ import annotations

from msgspec import json, structs

from openai_dify_proxy.responses.continuation import Continued
from openai_dify_proxy.responses.response_store import (
    DifyConversation,
    ResponseStore,
    StoredConversation,
    StoredResponse,
    storable,
)
from openai_dify_proxy.state.store import Operation, Put
from openai_dify_proxy.translate.openai.responses_items import read_input_items
from openai_dify_proxy.translate.openai.stored_items import split_items
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.wire.openai.responses import Response


class ResponseRecorder:
    """Stores one response unless its request has ``store: false``. ``body`` is the request's raw body.

    Its methods return operations for the state, and raise StateUnreachable.
    """

    def __init__(
        self, stored: ResponseStore, caller: Caller, request: TurnRequest, continued: Continued, *, body: bytes
    ) -> None:
        self._stored = stored
        self._caller = caller
        self._request = request
        self._continued = continued
        self._body = body

    async def run(self, operations: list[Operation]) -> None:
        """Run the operations; do nothing if the state is unreachable."""
        await self._stored.store.run(*operations)

    async def put_running(self, response: Response) -> Operation:
        """Store a response that is queued to run in the background. Raises TooLargeToStore."""
        return storable(await self._put(response, structs.replace(await self._entry(response), running=True)))

    async def put_failed(self, response: Response) -> list[Operation]:
        """Store a response that ended without a reply to continue."""
        return [await self._put(response, await self._entry(response))] if response.store else []

    async def put_finished(self, turn: ActiveTurn, response: Response, reply: HistoryMessage) -> list[Operation]:
        """Store a response that succeeded; ``reply`` is the message that the client received."""
        if not response.store:
            return []
        request = self._request
        messages = [*request.history, *request.asked, reply]
        entry = structs.replace(
            await self._entry(response), messages=messages, scope=turn.claim.scope, link=turn.claim.link_after(reply)
        )
        return [await self._put(response, entry)]

    async def put_conversation(self, turn: ActiveTurn, response: Response, reply: HistoryMessage) -> list[Operation]:
        """Store the response's conversation after the turn. Its next turn must not start earlier."""
        if self._continued.conversation is None:
            return []
        name, before = self._continued.conversation
        after = self._after(before, turn, response, reply)
        return [await self._stored.conversations.put_operation(self._caller, name, after)]

    async def remove(self, response: Response) -> Operation:
        """Remove a response that may have been stored although the state was unreachable."""
        return await self._stored.responses.remove_operation(self._caller, response.id)

    async def _entry(self, response: Response) -> StoredResponse:
        return StoredResponse(
            json.encode(response),
            json.encode(read_input_items(self._body, response.id)),
            end_user=await self._stored.responses.end_user_hash(self._request.end_user),
            previous=self._continued.previous,
        )

    async def _put(self, response: Response, entry: StoredResponse) -> Put:
        return await self._stored.responses.put_operation(self._caller, response.id, entry)

    def _after(
        self, before: StoredConversation, turn: ActiveTurn, response: Response, reply: HistoryMessage
    ) -> StoredConversation:
        """Return the conversation after the turn, with the earlier messages if the turn started a new one in Dify.

        Messages of a turn with ``store: false`` are in Dify only.
        """
        continued = self._continued
        name = turn.ids.conversation_id
        place = None if name is None else DifyConversation(turn.app_name, name, turn.user, turn.ids.message_id)
        after = structs.replace(
            before,
            place=place,
            failed=turn.cut_short,
            last=response.id if response.store else before.last,
            calls=list(reply.calls),
        )
        if place is not None and before.place is not None and place.id == before.place.id:
            return after
        if before.place is not None:
            after = structs.replace(after, left=[*before.left, before.place])
        messages: list[HistoryMessage] = [item for item in before.items if item.role == "system"]
        asked: list[HistoryMessage] = []
        if response.store:
            messages += continued.recalled
            asked += self._request.asked
        base_id = response.id.removeprefix("resp_")
        if place is not None:
            began = (before.last or "") if response.store else None
            return structs.replace(after, items=split_items(messages, base_id), asked=asked, began=began)
        if not response.store:
            return after
        return structs.replace(after, items=split_items([*messages, *asked, reply], base_id), asked=[])
