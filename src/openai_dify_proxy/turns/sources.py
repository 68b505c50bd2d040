"""What a turn goes on from by a name of ours: an earlier response, or a conversation."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, structs

from openai_dify_proxy.translate.conversation_items import history_of_messages
from openai_dify_proxy.translate.turn_request import HistoryMessage, Origin, TurnRequest
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.kept import Kept, KeptConversation
from openai_dify_proxy.turns.locks import Lock
from openai_dify_proxy.turns.service import Recall, Turns


class Source(Struct, frozen=True):
    """A request with all that it goes on from. ``previous`` is the response before it, if that was stored.

    The others are what ``Turns.begin`` takes, and the conversation that it belongs to.
    """

    request: TurnRequest
    recall: Recall | None = None
    lock: Lock | None = None
    previous: str | None = None
    conversation: tuple[str, KeptConversation] | None = None


class Sources:
    def __init__(self, kept: Kept, turns: Turns, apps: Apps, conversations: Conversations) -> None:
        self._kept = kept
        self._turns = turns
        self._apps = apps
        self._conversations = conversations

    async def of_response(self, caller: Caller, request: TurnRequest, name: str) -> Source:
        """Raises InvalidRequest if there is no such response, and StateUnreachable."""
        kept = await self._kept.previous(caller, name, request.end_user)
        request = structs.replace(request, origin=Origin(name, kept.scope, kept.link))

        async def recall() -> tuple[HistoryMessage, ...]:
            return (*await self._kept.recall(caller, name, request.end_user), *request.history)

        return Source(request, recall, previous=name)

    async def of_conversation(
        self, caller: Caller, model: str | None, request: TurnRequest, name: str, gone: Callable[[], bool]
    ) -> Source:
        """Raises ConversationNotFound, ConversationBusy and StateUnreachable.

        Until the turn has finished the conversation counts as failed, so that one that was cut or died with its
        process is not gone on from: then a new one is told what was answered in it.
        """
        shelf = self._kept.conversations
        lock = Lock(self._conversations.store, f"busy:{name}")
        await lock.acquire(gone, param="conversation")
        try:
            entry = await shelf.load(caller, name, request.end_user, strictly=True)
            if not entry.end_user:
                entry = structs.replace(entry, end_user=await shelf.end_user_of(request.end_user))
            request = structs.replace(request, origin=Origin(name))
            if self._goes_on(caller, model, entry):
                request = structs.replace(request, conversation_id=entry.dify_id)
                await shelf.put(caller, name, structs.replace(entry, failed=True))
        except BaseException:
            await lock.release()
            raise

        async def recall() -> tuple[HistoryMessage, ...]:
            return (*entry.items, *await self._told(caller, entry), *request.history)

        return Source(request, recall, lock, entry.last, (name, entry))

    async def _told(self, caller: Caller, entry: KeptConversation) -> tuple[HistoryMessage, ...]:
        if entry.dify_id is None or entry.user is None:
            return ()
        rows = await self._turns.messages(caller, entry.model, entry.dify_id, entry.user)
        return history_of_messages(rows)

    def _goes_on(self, caller: Caller, model: str | None, entry: KeptConversation) -> bool:
        """Whether Dify's conversation is there, is this app's, and ended well."""
        if entry.dify_id is None or entry.failed:
            return False
        return self._apps.choose(caller, entry.model).name == self._apps.choose(caller, model).name
