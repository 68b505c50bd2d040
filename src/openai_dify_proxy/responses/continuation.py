"""What a turn goes on from by a name of ours: an earlier response, or a conversation."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field, structs

from openai_dify_proxy.errors import ModelNotFound, NotFound
from openai_dify_proxy.responses.response_store import DifyConversation, ResponseStore, StoredConversation
from openai_dify_proxy.translate.history import last_question
from openai_dify_proxy.translate.openai.conversation_items import history_of_messages, messages_until
from openai_dify_proxy.translate.turn_request import HistoryMessage, StoredHistory, TurnRequest
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.locks import Lock
from openai_dify_proxy.turns.service import Recall, Turns
from openai_dify_proxy.turns.turn import ClientGone
from openai_dify_proxy.wire.dify import MessageRow


class ContinuedRequest(Struct, frozen=True):
    """A request with all that it goes on from. ``previous`` is the response before it, if that was stored.

    The others are what ``Turns.begin`` takes, and the conversation that it belongs to. ``recalled`` is filled with what
    was said before, if Dify has to be told.
    """

    request: TurnRequest
    recall: Recall | None = None
    lock: Lock | None = None
    previous: str | None = None
    conversation: tuple[str, StoredConversation] | None = None
    recalled: list[HistoryMessage] = field(default_factory=list)


class ContinuationResolver:
    def __init__(self, kept: ResponseStore, turns: Turns, apps: Apps) -> None:
        self._kept = kept
        self._turns = turns
        self._apps = apps

    async def of_response(self, caller: Caller, request: TurnRequest, name: str) -> ContinuedRequest:
        """Raises InvalidRequest if there is no such response, and StateUnreachable."""
        kept = await self._kept.previous(caller, name, request.end_user)
        request = structs.replace(request, origin=StoredHistory(name, kept.scope, kept.link, last_question(kept.said)))

        async def recall() -> tuple[HistoryMessage, ...]:
            return (*await self._kept.recall(caller, name, request.end_user), *request.history)

        return ContinuedRequest(request, recall, previous=name)

    async def of_conversation(
        self, caller: Caller, model: str | None, request: TurnRequest, name: str, gone: Callable[[], bool]
    ) -> ContinuedRequest:
        """Raises ConversationNotFound, ConversationBusy and StateUnreachable, and ClientGone if ``gone`` says so.

        Until the turn has finished the conversation counts as failed, so that one that was cut or died with its
        process is not gone on from: then a new one is told what was answered in it.
        """
        shelf = self._kept.conversations
        lock = await self._kept.lock(caller, name)
        await lock.acquire(gone, param="conversation")
        try:
            if gone():
                raise ClientGone
            entry = await shelf.load(caller, name, request.end_user, strictly=True)
            if not entry.end_user:
                entry = structs.replace(entry, end_user=await shelf.end_user_of(request.end_user))
            system = [message.text for message in entry.items if message.role == "system"]
            request = structs.replace(
                request,
                origin=StoredHistory(name, asked=last_question(entry.asked)),
                system="\n\n".join(filter(None, [*system, request.system])),
            )
            # Words that Dify cannot be told as said before it would not know.
            goes_on = not request.history and self._goes_on(caller, model, entry)
            if entry.place is not None and goes_on:
                request = structs.replace(request, conversation_id=entry.place.id)
                lock.undo = (await shelf.putting(caller, name, entry),)
                await shelf.put(caller, name, structs.replace(entry, failed=True))
        except BaseException:
            await lock.release()
            raise
        recalled: list[HistoryMessage] = []

        async def recall() -> tuple[HistoryMessage, ...]:
            recalled[:] = [*await self._said(caller, name, entry, request.end_user), *request.history]
            return tuple(recalled)

        return ContinuedRequest(request, recall, lock, entry.last, (name, entry), recalled)

    async def _said(
        self, caller: Caller, name: str, entry: StoredConversation, end_user: str | None
    ) -> list[HistoryMessage]:
        """All that was said in a conversation. Where Dify lost it, only what its stored responses tell is left.

        Raises ConversationNotFound where none were stored.
        """
        spoken = [message for message in entry.items if message.role != "system"]
        try:
            return [*spoken, *await self._told(caller, entry)]
        except NotFound:
            if entry.last is None:
                raise
        # What it began with is in no response's words; what it went on with elsewhere is in them.
        return [*([] if entry.left else spoken), *await self._kept.recall(caller, entry.last, end_user)]

    async def _told(self, caller: Caller, entry: StoredConversation) -> list[HistoryMessage]:
        return [] if entry.place is None else history_of_messages(await self.messages(caller, entry.place), entry.asked)

    async def messages(self, caller: Caller, place: DifyConversation) -> list[MessageRow]:
        """What was said in a conversation of Dify's, oldest first, without turns that went wrong. Raises ProxyError."""
        rows = await self._turns.messages(caller, place.model, place.id, place.user)
        return messages_until(rows, place.message)

    def _goes_on(self, caller: Caller, model: str | None, entry: StoredConversation) -> bool:
        """Whether Dify's conversation ended well, and is this app's."""
        if entry.place is None or entry.failed:
            return False
        try:
            before = self._apps.choose(caller, entry.place.model)
        except ModelNotFound:  # an app that is not served here any more
            return False
        return before.name == self._apps.choose(caller, model).name
