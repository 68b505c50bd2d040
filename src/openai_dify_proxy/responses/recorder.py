"""What is kept of a response: its object, what the next needs to go on from it, and what its conversation became."""

from __future__ import annotations

from msgspec import json, structs

from openai_dify_proxy.responses.continuation import ContinuedRequest
from openai_dify_proxy.responses.response_store import (
    DifyConversation,
    ResponseStore,
    StoredConversation,
    StoredResponse,
)
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.translate.openai.responses_items import read_input_items
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.service import ActiveTurn
from openai_dify_proxy.wire.openai.responses import Response


class ResponseRecorder:
    """Keeps one response, as far as its request wants that; ``body`` is the request's, as it was sent.

    Its methods tell what is to be done in the state. They raise StateUnreachable.
    """

    def __init__(self, kept: ResponseStore, caller: Caller, source: ContinuedRequest, body: bytes) -> None:
        self._kept = kept
        self.caller = caller
        self.source = source
        self._body = body

    async def do(self, operations: list[Operation]) -> None:
        """Does them, if the state can be reached."""
        await self._kept.store.run(*operations)

    async def begun(self, response: Response) -> Operation:
        """Of a response that is about to run in the background."""
        return await self._putting(response, structs.replace(await self._entry(response), running=True))

    async def failed(self, response: Response) -> list[Operation]:
        """Of a response that ended without a reply to go on from."""
        return [await self._putting(response, await self._entry(response))] if response.store else []

    async def finished(self, running: ActiveTurn, response: Response, sent: str) -> list[Operation]:
        """Of a response that ended well and was told as ``sent``. To be asked after ``thread.extend``."""
        if not response.store:
            return []
        thread = running.thread
        entry = await self._entry(response)
        said = [*self.source.request.history, *self.source.request.asked, HistoryMessage("assistant", sent)]
        entry = structs.replace(entry, said=said, scope=thread.scope, link=thread.link or b"")
        return [await self._putting(response, entry)]

    async def went_on(self, running: ActiveTurn, response: Response, sent: str) -> list[Operation]:
        """Of the conversation, if the response is one of it; to be done before the next turn of it may begin."""
        if self.source.conversation is None:
            return []
        name, before = self.source.conversation
        after = self._after(before, running, response, sent)
        return [await self._kept.conversations.putting(self.caller, name, after)]

    async def removing(self, response: Response) -> Operation:
        """Of a response that did not come to run after all."""
        return await self._kept.responses.removing(self.caller, response.id)

    async def _entry(self, response: Response) -> StoredResponse:
        return StoredResponse(
            json.encode(response),
            json.encode(read_input_items(self._body, response.id)),
            end_user=await self._kept.responses.end_user_of(self.source.request.end_user),
            previous=self.source.previous,
        )

    async def _putting(self, response: Response, entry: StoredResponse) -> Operation:
        return await self._kept.responses.putting(self.caller, response.id, entry)

    def _after(
        self, before: StoredConversation, running: ActiveTurn, response: Response, sent: str
    ) -> StoredConversation:
        """The conversation after the turn. Where Dify's is another one now, it holds what that one was told of.

        Of a turn that is not to be stored only Dify knows what was said.
        """
        turn = running.turn
        name = turn.ids.conversation_id
        place = None if name is None else DifyConversation(running.model, name, turn.user, turn.ids.message_id)
        after = structs.replace(
            before, place=place, failed=turn.cut_short, last=response.id if response.store else before.last
        )
        if place is not None and before.place is not None and place.id == before.place.id:
            return after
        if before.place is not None:
            after = structs.replace(after, left=[*before.left, before.place])
        told = [message for message in before.items if message.role == "system"]
        asked: list[HistoryMessage] = []
        if response.store:
            told += self.source.recalled
            asked += self.source.request.asked
        if place is not None:
            return structs.replace(after, items=told, asked=asked)
        if not response.store:
            return after
        return structs.replace(after, items=[*told, *asked, HistoryMessage("assistant", sent)], asked=[])
