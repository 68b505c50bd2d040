"""What clients may ask for later by name: responses and conversations, each for its owner only.

A name leads to an entry only together with the caller whose it is, which is whoever holds the client's key. Where the
entry has an end user, nobody else's turn goes on from it, and nobody who tells another end user reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from openai_dify_proxy.errors import (
    ConversationNotFound,
    InvalidRequest,
    ProxyError,
    ResponseNotFound,
    StateUnreachable,
)
from openai_dify_proxy.state.store import Get, Operation, Put, Take
from openai_dify_proxy.translate.history import chain
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.locks import Lock


class StoredResponse(Struct, frozen=True, omit_defaults=True):
    """A response that was to be stored.

    ``response`` is its object and ``input`` its items, both JSON. ``said`` is what it adds to the history that
    ``previous`` names; ``scope`` and ``link`` are those of its thread. While it is ``running`` in the background, the
    object is still that of its beginning.
    """

    response: bytes
    input: bytes = b"[]"
    said: list[HistoryMessage] = []
    end_user: bytes = b""
    scope: bytes = b""
    link: bytes = b""
    previous: str | None = None
    running: bool = False


class DifyConversation(Struct, frozen=True):
    """A conversation of Dify's: its id, the model whose app it belongs to, Dify's ``user``, and the last message of it
    that was answered to the end."""

    model: str
    id: str
    user: str
    message: str | None


class StoredConversation(Struct, frozen=True, omit_defaults=True):
    """A conversation under a name of ours, and the ``place`` where it goes on in Dify, if it has one yet.

    ``items`` is what was said before that began, and ``asked`` the question that began it, as the client put it: Dify
    has it with all that it was told beside it. ``failed`` tells that Dify's last turn in it went wrong, ``left`` are
    the places where it was before, ``last`` is the last response that was stored of it.
    """

    created_at: int
    metadata: dict[str, str] = {}
    items: list[HistoryMessage] = []
    asked: list[HistoryMessage] = []
    end_user: bytes = b""
    place: DifyConversation | None = None
    left: list[DifyConversation] = []
    failed: bool = False
    last: str | None = None


_T = TypeVar("_T", StoredResponse, StoredConversation)


class OwnedEntries(Generic[_T]):
    """Entries of one kind, by their owner's name for them."""

    def __init__(
        self, conversations: Conversations, kind: type[_T], prefix: str, not_found: Callable[[str], ProxyError]
    ) -> None:
        self._conversations = conversations
        self._not_found = not_found
        self._prefix = prefix
        self._encode = msgspec.msgpack.Encoder().encode
        self._decoder: msgspec.msgpack.Decoder[_T] = msgspec.msgpack.Decoder(kind)

    def new_name(self) -> str:
        return f"{self._prefix}_{token_hex(24)}"

    async def load(self, caller: Caller, name: str, end_user: str | None, *, strictly: bool = False) -> _T:
        """The entry. ``strictly`` refuses also who tells no end user where the entry has one.

        Raises ResponseNotFound or ConversationNotFound, and StateUnreachable.
        """
        secret = await self._secret()
        value = (await self._run(Get(_key(secret, self._prefix, caller, name))))[0]
        if value is None:
            raise self._not_found(name)
        entry = self._decoder.decode(value)
        if (end_user is not None or strictly) and entry.end_user and entry.end_user != user_hash(secret, end_user):
            raise self._not_found(name)
        return entry

    async def put(self, caller: Caller, name: str, entry: _T) -> None:
        """Raises StateUnreachable."""
        await self._run(await self.putting(caller, name, entry))

    async def putting(self, caller: Caller, name: str, entry: _T) -> Operation:
        """What keeps the entry, to be done together with other things. Raises StateUnreachable."""
        return Put(_key(await self._secret(), self._prefix, caller, name), self._encode(entry), self._conversations.ttl)

    async def removing(self, caller: Caller, name: str) -> Operation:
        """What removes the entry, to be done together with other things. Raises StateUnreachable."""
        return Take(_key(await self._secret(), self._prefix, caller, name))

    async def remove(self, caller: Caller, name: str) -> None:
        """Raises StateUnreachable."""
        await self._run(await self.removing(caller, name))

    async def key_of(self, caller: Caller, name: str, kind: str) -> str:
        """The key of something that belongs to the entry. Raises StateUnreachable."""
        return _key(await self._secret(), kind, caller, name)

    async def end_user_of(self, end_user: str | None) -> bytes:
        """How an entry names its end user. Raises StateUnreachable."""
        return user_hash(await self._secret(), end_user)

    async def _secret(self) -> bytes:
        secret = await self._conversations.secret()
        if secret is None:
            raise unreachable()
        return secret

    async def _run(self, *operations: Operation) -> list[bytes | None]:
        results = await self._conversations.store.run(*operations)
        if results is None:
            raise unreachable()
        return results


def no_response(name: str) -> ProxyError:
    return ResponseNotFound(f"There is no response '{name[:100]}' of yours here, or no longer.")


def _no_conversation(name: str) -> ProxyError:
    return ConversationNotFound(
        f"There is no conversation '{name[:100]}' of yours here, or no longer.", param="conversation"
    )


def user_hash(secret: bytes, end_user: str | None) -> bytes:
    return b"" if end_user is None else chain(secret, [("end_user", end_user)])[:16]


def _key(secret: bytes, kind: str, caller: Caller, name: str) -> str:
    return f"{kind}:{chain(secret, [('caller', caller.id), (kind, name)]).hex()}"


def unreachable() -> StateUnreachable:
    return StateUnreachable("What this server keeps cannot be reached at the moment. Try again soon.")


class ResponseStore:
    """All that is kept by name."""

    def __init__(self, conversations: Conversations) -> None:
        self.store = conversations.store
        self.responses = OwnedEntries(conversations, StoredResponse, "resp", no_response)
        self.conversations = OwnedEntries(conversations, StoredConversation, "conv", _no_conversation)

    async def lock(self, caller: Caller, conversation: str) -> Lock:
        """The right to change a conversation, be it by a turn. Raises StateUnreachable."""
        return Lock(self.store, await self.conversations.key_of(caller, conversation, "busy"))

    async def previous(self, caller: Caller, name: str, end_user: str | None) -> StoredResponse:
        """The response that a new one goes on from. Raises InvalidRequest if there is none, or it has not ended."""
        try:
            kept = await self.responses.load(caller, name, end_user, strictly=True)
        except ResponseNotFound as error:
            raise InvalidRequest(
                f"Previous response with id '{name[:100]}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            ) from error
        if kept.running:
            raise InvalidRequest(
                f"Previous response with id '{name[:100]}' has not ended yet.", param="previous_response_id"
            )
        return kept

    async def recall(self, caller: Caller, name: str, end_user: str | None) -> tuple[HistoryMessage, ...]:
        """All that was said up to the end of a response. Raises InvalidRequest if part of it is gone."""
        said: list[HistoryMessage] = []
        following: str | None = name
        while following is not None:
            kept = await self.previous(caller, following, end_user)
            said[:0] = kept.said
            following = kept.previous
        return tuple(said)
