"""Resolves ``previous_response_id`` and ``conversation`` to the stored history that a turn continues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct, field, structs

from openai_dify_proxy.errors import InvalidRequest, ModelNotAllowed, ModelNotFound, NotFound
from openai_dify_proxy.responses.response_store import DifyConversation, ResponseStore, StoredConversation
from openai_dify_proxy.translate.history import last_question
from openai_dify_proxy.translate.openai.conversation_items import messages_until
from openai_dify_proxy.translate.openai.responses_request import MAX_REFERENCED_TEXT
from openai_dify_proxy.translate.openai.stored_items import (
    StoredItem,
    items_of_messages,
    join_items,
    split_items,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage, StoredHistory
from openai_dify_proxy.translate.usage_estimates import characters_of
from openai_dify_proxy.turns.admission.admittance import Admittance
from openai_dify_proxy.turns.apps import App, Apps
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.locks import Lock
from openai_dify_proxy.turns.runs import Recall
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.wire.dify import MessageRow
from openai_dify_proxy.wire.openai.chat import MAX_ITEMS


class Continued(Struct, frozen=True):
    """The stored history of a request. ``previous`` is the response before it, if that was stored.

    ``history`` is for the turn request, ``recall`` and ``lock`` are for ``Turns.run``. ``conversation`` is the stored
    conversation of the turn, with its id. ``recalled`` receives the history that is sent to Dify, if any.
    """

    history: StoredHistory | None = None
    recall: Recall | None = None
    lock: Lock | None = None
    previous: str | None = None
    conversation: tuple[str, StoredConversation] | None = None
    recalled: list[HistoryMessage] = field(default_factory=list)


class ContinuationResolver:
    """Finds the history of a request among the stored responses and conversations of its caller."""

    def __init__(self, stored: ResponseStore, turns: Turns, apps: Apps) -> None:
        self._stored = stored
        self._turns = turns
        self._apps = apps

    @asynccontextmanager
    async def resolve(
        self,
        caller: Caller,
        app: App,
        admittance: Admittance,
        *,
        end_user: str | None,
        history: Sequence[HistoryMessage],
        previous: str | None,
        conversation: str | None,
    ) -> AsyncIterator[Continued]:
        """Yield the history that a request continues. Its lock is released at the end unless a turn took it over.

        ``history`` holds the request's own messages before its question. ``admittance`` gives up its slot while another
        turn holds the conversation's lock. Raises InvalidRequest for an unknown response, ConversationNotFound,
        ConversationBusy, StateUnreachable, and the errors of the wait for another slot.
        """
        if previous is not None:
            yield await self._after_response(caller, previous, end_user)
        elif conversation is not None:
            async with await self._stored.lock(caller, conversation) as lock:
                await admittance.acquire(lock, param="conversation")
                yield await self._in_conversation(caller, app, conversation, lock, end_user=end_user, history=history)
        else:
            yield Continued()

    async def read(
        self, caller: Caller, *, end_user: str | None, previous: str | None, conversation: str | None
    ) -> tuple[StoredHistory | None, Sequence[HistoryMessage]]:
        """Return the history that a request would continue, and its messages, without continuing it.

        Raises InvalidRequest for an unknown response, ConversationNotFound and StateUnreachable.
        """
        if previous is not None:
            continued = await self._after_response(caller, previous, end_user)
            return continued.history, await self._stored.recall(caller, previous, end_user)
        if conversation is not None:
            entry = await self._stored.conversations.load(caller, conversation, end_user, strictly=True)
            stored = StoredHistory(conversation, system=_system(entry), calls=tuple(entry.calls))
            return stored, join_items(await self._earlier_items(caller, None, conversation, entry, end_user))
        return None, ()

    async def preview(
        self, caller: Caller, *, end_user: str | None, previous: str | None, conversation: str | None
    ) -> Continued:
        """Return the history that a request would continue now, for its checks only. Raises the errors of ``resolve``.

        It needs no lock, and calls nothing in Dify.
        """
        if previous is not None:
            return await self._after_response(caller, previous, end_user)
        if conversation is None:
            return Continued()
        entry = await self._stored.conversations.load(caller, conversation, end_user, strictly=True)
        conversation_id = None if entry.place is None else entry.place.id
        stored = StoredHistory(conversation, conversation_id=conversation_id, calls=tuple(entry.calls))
        return Continued(stored, previous=entry.last)

    async def messages(
        self, caller: Caller, place: DifyConversation, *, in_turn_of: App | None = None
    ) -> list[MessageRow]:
        """Return the messages of a conversation in Dify, oldest first, without failed turns. Raises ProxyError.

        A turn of the app ``in_turn_of`` has a slot of its Dify already.
        """
        rows = await self._turns.messages(caller, place.model, place.id, place.user, in_turn_of=in_turn_of)
        return messages_until(rows, place.message)

    async def _after_response(self, caller: Caller, name: str, end_user: str | None) -> Continued:
        stored = await self._stored.previous(caller, name, end_user)
        calls = stored.messages[-1].calls if stored.messages else ()
        stored_history = StoredHistory(name, stored.scope, stored.link, last_question(stored.messages), calls=calls)

        async def recall() -> Sequence[HistoryMessage]:
            return await self._stored.recall(caller, name, end_user)

        return Continued(stored_history, recall, previous=name)

    async def _in_conversation(
        self,
        caller: Caller,
        app: App,
        name: str,
        lock: Lock,
        *,
        end_user: str | None,
        history: Sequence[HistoryMessage],
    ) -> Continued:
        """Continue a stored conversation, which counts as failed until the turn has finished.

        So after an interrupted turn or a crash, the next turn starts a new conversation in Dify, with a transcript.
        """
        store = self._stored.conversations
        entry = await store.load(caller, name, end_user, strictly=True)
        if not entry.end_user:
            entry = structs.replace(entry, end_user=await store.end_user_hash(end_user))
        conversation_id = None
        # Messages that the input adds to the history cannot be added to Dify's conversation.
        if entry.place is not None and not history and self._continues(caller, app, entry):
            conversation_id = entry.place.id
            lock.undo = (await store.put_operation(caller, name, entry),)
            await store.put(caller, name, structs.replace(entry, failed=True))
        stored = StoredHistory(
            name,
            asked=last_question(entry.asked),
            system=_system(entry),
            conversation_id=conversation_id,
            calls=tuple(entry.calls),
        )
        recalled: list[HistoryMessage] = []

        async def recall() -> Sequence[HistoryMessage]:
            items = await self._earlier_items(caller, app, name, entry, end_user)
            earlier = join_items(items)
            if len(earlier) > MAX_ITEMS or sum(map(characters_of, earlier)) > MAX_REFERENCED_TEXT:
                raise InvalidRequest(
                    f"The conversation has more than {MAX_ITEMS} messages or {MAX_REFERENCED_TEXT} characters. "
                    "Create a new one.",
                    param="conversation",
                )
            recalled[:] = [*items, *history]
            return earlier

        return Continued(stored, recall, lock, entry.last, (name, entry), recalled)

    async def _earlier_items(
        self, caller: Caller, app: App | None, name: str, entry: StoredConversation, end_user: str | None
    ) -> list[StoredItem]:
        """Return the messages of a conversation; of what Dify lost, only those of stored responses.

        Raises ConversationNotFound if Dify lost it and no responses are stored.
        """
        before_dify = [item for item in stored_items(name, entry) if item.role != "system"]
        if entry.place is None:
            return before_dify
        try:
            rows = await self.messages(caller, entry.place, in_turn_of=app)
            return [*before_dify, *(item for item in items_of_messages(rows, entry.asked) if not item.failed)]
        except NotFound:
            if entry.last is None:
                raise
        if entry.began is None and entry.left:
            before_dify = []  # the stored responses include the messages of the earlier conversations in Dify
        responses = await self._stored.recall(caller, entry.last, end_user, after=entry.began)
        return [*before_dify, *split_items(responses, f"{entry.last.removeprefix('resp_')}_r")]

    def _continues(self, caller: Caller, app: App, entry: StoredConversation) -> bool:
        """Return whether the last turn of Dify's conversation succeeded, and the conversation belongs to ``app``."""
        if entry.place is None or entry.failed:
            return False
        try:
            return self._apps.choose(caller, entry.place.model).name == app.name
        except (ModelNotFound, ModelNotAllowed):  # an app that is no longer served, or excluded for this key
            return False


def stored_items(name: str, entry: StoredConversation) -> list[StoredItem]:
    """Return the items of the conversation ``name`` that are stored here, with ids."""
    return split_items(entry.items, name.removeprefix("conv_"))


def _system(entry: StoredConversation) -> str:
    return "\n\n".join(message.text for message in entry.items if message.role == "system")
