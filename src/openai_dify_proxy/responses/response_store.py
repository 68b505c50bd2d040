"""Stored responses and conversations, each readable by its owner only.

The key of an entry depends on its id and on the caller that owns it, the holder of a client key. If an entry
has an end user, only turns of that end user can continue it, and requests that name another cannot read it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from openai_dify_proxy.errors import (
    ConversationNotFound,
    InvalidRequest,
    ProxyError,
    ResponseNotFound,
    StateUnreachable,
    TooLargeToStore,
)
from openai_dify_proxy.state.store import MAX_ENTRY_BYTES, Get, Operation, Put, Take
from openai_dify_proxy.translate.openai.responses_request import MAX_REFERENCED_TEXT
from openai_dify_proxy.translate.openai.stored_items import StoredItem
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall
from openai_dify_proxy.translate.usage_estimates import characters_of
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.locks import Lock
from openai_dify_proxy.wire.numbers import read_float
from openai_dify_proxy.wire.openai.chat import MAX_ITEMS
from openai_dify_proxy.wire.openai.responses import RESPONSE, Response


class StoredResponse(Struct, frozen=True, omit_defaults=True):
    """A stored response.

    ``response`` is its object and ``input`` its items, both JSON. ``messages`` are added to the history of
    ``previous``; ``scope`` and ``link`` are those of its conversation claim. While it is ``running`` in the background,
    the object is the initial one.
    """

    response: bytes
    input: bytes = b"[]"
    messages: list[HistoryMessage] = msgspec.field(default_factory=list, name="said")
    end_user: bytes = b""
    scope: bytes = b""
    link: bytes = b""
    previous: str | None = None
    running: bool = False


class DifyConversation(Struct, frozen=True):
    """A conversation in Dify: its id, the model of its app, Dify's ``user``, and the id of the last complete answer."""

    model: str
    id: str
    user: str
    message: str | None


class StoredConversation(Struct, frozen=True, omit_defaults=True):
    """A conversation with an id of the proxy, and its conversation in Dify (``place``), if it has one yet.

    ``items`` holds the messages before that conversation, and ``asked`` its first question as the client wrote it:
    Dify's copy may have instructions and a transcript before it. ``failed`` means that the last turn in Dify failed;
    ``left`` holds earlier conversations in Dify; ``last`` is the last stored response. ``began`` is the last one
    before ``place``, or an empty string; it is None if ``items`` lack messages before ``place``. ``calls`` are the tool
    calls of the last answer, whose results the next request sends.
    """

    created_at: int
    metadata: dict[str, str] = {}
    items: list[StoredItem] = []
    asked: list[HistoryMessage] = []
    end_user: bytes = b""
    place: DifyConversation | None = None
    left: list[DifyConversation] = []
    failed: bool = False
    last: str | None = None
    calls: list[ToolCall] = []
    began: str | None = None


_INPUT_ITEMS = msgspec.json.Decoder(list[dict[str, Any]], float_hook=read_float)

_T = TypeVar("_T", StoredResponse, StoredConversation)


class OwnedEntries(Generic[_T]):
    """Entries of one kind, by their owner and id."""

    def __init__(
        self, conversations: Conversations, kind: type[_T], prefix: str, not_found: Callable[[str], ProxyError]
    ) -> None:
        self._conversations = conversations
        self._not_found = not_found
        self._prefix = prefix
        self._encode = msgspec.msgpack.Encoder().encode
        self._decoder: msgspec.msgpack.Decoder[_T] = msgspec.msgpack.Decoder(kind)

    def new_id(self) -> str:
        return f"{self._prefix}_{token_hex(24)}"

    async def load(self, caller: Caller, name: str, end_user: str | None, *, strictly: bool = False) -> _T:
        """Return the entry. ``strictly`` also rejects requests without an end user if the entry has one.

        Raises ResponseNotFound or ConversationNotFound, and StateUnreachable.
        """
        secret = await self._secret()
        key = _key(secret, self._prefix, caller, name)
        value = (await self._run(Get(key, large=True)))[0]
        entry = self._conversations.store.decode(key, value, self._decoder.decode)
        if entry is None:
            raise self._not_found(name)
        if (end_user is not None or strictly) and entry.end_user and entry.end_user != _hash_end_user(secret, end_user):
            raise self._not_found(name)
        return entry

    async def put(self, caller: Caller, name: str, entry: _T) -> None:
        """Store the entry. Raises StateUnreachable and TooLargeToStore."""
        await self._run(storable(await self.put_operation(caller, name, entry)))

    async def put_operation(self, caller: Caller, name: str, entry: _T) -> Put:
        """Return the operation that stores the entry; no effect if that is too large. Raises StateUnreachable."""
        key = _key(await self._secret(), self._prefix, caller, name)
        return Put(key, self._encode(entry), self._conversations.ttl, caller.id)

    async def remove_operation(self, caller: Caller, name: str) -> Operation:
        """Return the operation that removes the entry. Raises StateUnreachable."""
        return Take(_key(await self._secret(), self._prefix, caller, name), caller.id)

    async def remove(self, caller: Caller, name: str) -> None:
        """Remove the entry. Raises StateUnreachable."""
        await self._run(await self.remove_operation(caller, name))

    async def key_of(self, caller: Caller, name: str, kind: str) -> str:
        """Return the key of further state of the entry, such as its lock. Raises StateUnreachable."""
        return _key(await self._secret(), kind, caller, name)

    async def end_user_hash(self, end_user: str | None) -> bytes:
        """Return the hash of an end user that entries hold. Raises StateUnreachable."""
        return _hash_end_user(await self._secret(), end_user)

    async def _secret(self) -> bytes:
        secret = await self._conversations.secret()
        if secret is None:
            raise state_unreachable()
        return secret

    async def _run(self, *operations: Operation) -> list[bytes | None]:
        results = await self._conversations.store.run(*operations)
        if results is None:
            raise state_unreachable()
        return results


def response_not_found(name: str) -> ProxyError:
    return ResponseNotFound(f"Response '{name[:100]}' not found. It may have expired, or belong to another API key.")


def _conversation_not_found(name: str) -> ProxyError:
    return ConversationNotFound(
        f"Conversation '{name[:100]}' not found. It may have expired, or belong to another API key.",
        param="conversation",
    )


def _hash_end_user(secret: bytes, end_user: str | None) -> bytes:
    return b"" if end_user is None else _keyed_hash(secret, ("end_user", end_user))[:16]


def _key(secret: bytes, kind: str, caller: Caller, name: str) -> str:
    return f"{kind}:{_keyed_hash(secret, ('caller', caller.id), (kind, name)).hex()}"


def _keyed_hash(secret: bytes, *parts: tuple[str, str]) -> bytes:
    """Return a chain of HMACs over pairs of a kind and a content. Clients hold ids for a month: it must not change."""
    link = b""
    for kind, content in parts:
        data = content.encode("utf-8", "surrogatepass")
        link = hmac.digest(secret, b"%b%b\0%d\0%b" % (link, kind.encode(), len(data), data), "sha256")
    return link


def storable(operation: Put) -> Put:
    """Return ``operation``. Raises TooLargeToStore if its value exceeds the limit."""
    if len(operation.value) > MAX_ENTRY_BYTES:
        raise TooLargeToStore(
            f"The request takes {len(operation.value)} bytes to store, more than the limit of {MAX_ENTRY_BYTES}. "
            "Shorten its input."
        )
    return operation


def state_unreachable() -> StateUnreachable:
    return StateUnreachable("This server's storage cannot be reached. Try again in a moment.")


class ResponseStore:
    """The stored responses and conversations."""

    def __init__(self, conversations: Conversations) -> None:
        self.store = conversations.store
        self.responses = OwnedEntries(conversations, StoredResponse, "resp", response_not_found)
        self.conversations = OwnedEntries(conversations, StoredConversation, "conv", _conversation_not_found)

    def response_of(self, name: str, entry: StoredResponse) -> Response:
        """Return the object of the response ``name``. Raises ResponseNotFound if it cannot be decoded."""
        response = self.store.decode(name, entry.response, RESPONSE.decode)
        if response is None:
            raise response_not_found(name)
        return response

    def input_of(self, name: str, entry: StoredResponse) -> list[dict[str, Any]]:
        """Return the input items of the response ``name``. Raises ResponseNotFound if they cannot be decoded."""
        items = self.store.decode(name, entry.input, _INPUT_ITEMS.decode)
        if items is None or not all(isinstance(item.get("id"), str) for item in items):
            raise response_not_found(name)
        return items

    async def lock(self, caller: Caller, conversation: str) -> Lock:
        """Return the lock for turns and other changes of a conversation. Raises StateUnreachable."""
        return Lock(self.store, await self.conversations.key_of(caller, conversation, "busy"), caller.id)

    async def previous(self, caller: Caller, name: str, end_user: str | None) -> StoredResponse:
        """Return the response that a new one continues. Raises InvalidRequest if it is unknown or has not ended."""
        try:
            stored = await self.responses.load(caller, name, end_user, strictly=True)
        except ResponseNotFound as error:
            raise InvalidRequest(
                f"Previous response with id '{name[:100]}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            ) from error
        if stored.running:
            raise InvalidRequest(
                f"Previous response with id '{name[:100]}' has not ended yet. Wait for its end.",
                param="previous_response_id",
            )
        return stored

    async def recall(
        self, caller: Caller, name: str, end_user: str | None, *, after: str | None = None
    ) -> tuple[HistoryMessage, ...]:
        """Return all messages up to the end of a response; with ``after``, only those after that earlier response.

        Raises InvalidRequest if an earlier response is missing, or if there are too many messages or characters.
        """
        turns: list[list[HistoryMessage]] = []
        characters = size = 0
        following: str | None = name
        while following is not None and following != after:
            stored = await self.previous(caller, following, end_user)
            turns.append(stored.messages)
            size += len(stored.messages)
            characters += sum(map(characters_of, stored.messages))
            if max(len(turns), size) > MAX_ITEMS or characters > MAX_REFERENCED_TEXT:
                raise InvalidRequest(
                    f"The history before the request has more than {MAX_ITEMS} messages or {MAX_REFERENCED_TEXT} "
                    "characters. Begin a new one.",
                    param="previous_response_id",
                )
            following = stored.previous
        return tuple(message for turn in reversed(turns) for message in turn)
