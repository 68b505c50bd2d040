"""Whose conversation a turn goes on with: the ladder of named, known by its history, and new.

To continue is to take. The entry that leads from a history to Dify's conversation is removed in the moment in which it
is read, and the finished turn leaves the one for the history as it then is. So of all requests that could go on from
the same point one does, and the others (a regeneration, a retry, whoever comes after a turn that failed) begin a new
conversation with a transcript. Nothing of what went wrong in Dify's conversation is ever met again.

A conversation that a client names by Dify's own id is not taken but locked: its turns run one after the other.

Stored are keyed hashes, ids and times, never what was said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_bytes

import msgspec
import structlog
from msgspec import Struct

from openai_dify_proxy.errors import ConversationBusy
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Add, Get, Operation, Put, Take
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.request import (
    BEGINNING,
    Continuation,
    named_conversation,
    sent_inputs,
    sent_system,
)
from openai_dify_proxy.translate.history import chain, fold, fold_replies, fold_text, last_question
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.locks import PATIENCE, STEP, Lock

SECRET_CHECK_SECONDS = 60.0
"""How often the secret is held against the state's, which may have been lost and begun anew."""

SECOND = 1.05
"""Dify orders the messages of a conversation by whole seconds, so two turns never begin within the same one."""

LONG_AGO = 600.0
"""Seconds since a conversation's last turn, after which an app that would hide its loss is asked for it first."""

FORGETFUL_SECONDS = 24 * 3600.0
"""How long a chatflow is taken for one whose model has its memory switched off."""

log = structlog.get_logger(__name__)


class ConversationEntry(Struct, frozen=True, array_like=True):
    """Where a history leads: Dify's conversation, when its last turn began (seconds since the epoch), and the digest of
    the system message that it was told."""

    conversation_id: str
    at: float
    system: bytes


class ConversationRecord(Struct, frozen=True, array_like=True):
    """What is known of a Dify conversation that this scope was given; ``head`` is the key of the entry to it."""

    head: str
    at: float
    system: bytes


_encode = msgspec.msgpack.Encoder().encode
_read_entry = msgspec.msgpack.Decoder(ConversationEntry).decode
_read_owned = msgspec.msgpack.Decoder(ConversationRecord).decode


class Scope(Struct, frozen=True):
    """Within what conversations are one's own: ``link`` is the first of a fingerprint's chain."""

    secret: bytes
    link: bytes

    def key(self, kind: str, conversation_id: str) -> str:
        return f"{kind}:{chain(self.secret, [(kind, conversation_id)], self.link).hex()}"


class Conversations:
    """Finds the conversation of a turn and remembers it afterwards.

    ``ttl`` is in seconds, ``now`` a clock in seconds since the epoch. State that cannot be reached costs the memory of
    conversations, never a turn.
    """

    def __init__(self, store: GuardedStore, *, ttl: float, now: Callable[[], float]) -> None:
        self.store = store
        self.ttl = ttl
        self.now = now
        self._secret: bytes | None = None
        self._checked = 0.0

    async def secret(self) -> bytes | None:
        """What keys all hashes, the same in every process that shares the state; None while it cannot be reached."""
        if self._secret is None or self.now() - self._checked > SECRET_CHECK_SECONDS:
            own = self._secret or token_bytes(32)
            results = await self.store.run(Add("secret", own))
            if results is not None:
                self._secret = results[0] or own
                self._checked = self.now()
        return self._secret

    async def open(
        self,
        caller: Caller,
        app: App,
        profile: AppProfile,
        request: TurnRequest,
        *,
        gone: Callable[[], bool],
        lock: Lock | None = None,
    ) -> ConversationClaim:
        """The conversation to go on with, or a new one. ``lock`` is given back at the turn's end.

        Raises InvalidRequest for a name that can be none, and ConversationBusy.
        """
        thread = ConversationClaim(self, app, profile, request, lock)
        try:
            if profile.converses and not request.stateless:
                await self._find(thread, caller, app, request, gone)
        except BaseException:
            await thread.give_back()
            raise
        return thread

    async def _find(
        self, thread: ConversationClaim, caller: Caller, app: App, request: TurnRequest, gone: Callable[[], bool]
    ) -> None:
        named = named_conversation(request)
        if app.conversations == "last-message":
            thread.continuation = Continuation(history=False)
        secret = await self.secret()
        if secret is not None:
            thread.fingerprint(secret, caller)
        if named is not None:
            await thread.go_on_in(named, gone)
        elif app.conversations == "auto":
            await thread.find()


class ConversationClaim:
    """One turn's conversation, from before Dify is asked until the turn's end.

    ``continuation`` tells how Dify is to be asked, ``not_before`` (seconds since the epoch) when at the earliest,
    ``unconfirmed`` that nobody but the client says that there is such a conversation. Call ``give_back`` if the
    request never reached Dify, else ``keep`` once it has been answered; ``end`` a turn that is not ``settled`` then.
    """

    def __init__(
        self, conversations: Conversations, app: App, profile: AppProfile, request: TurnRequest, lock: Lock | None
    ) -> None:
        self.continuation = BEGINNING
        self.not_before = 0.0
        self.unconfirmed = False
        self.link: bytes | None = None
        self._conversations = conversations
        self._store = conversations.store
        self._app = app
        self._profile = profile
        self._request = request
        self._scope: Scope | None = None
        self._system = b""
        self._at = 0.0
        self._taken: tuple[str, bytes] | None = None
        self._named: str | None = None
        self._locks = [] if lock is None else [lock]
        self._kept = False
        self._head = ""

    def fingerprint(self, secret: bytes, caller: Caller) -> None:
        """The scope, and the chain over all that was said before."""
        request, app = self._request, self._app
        rules = app.rules
        parts = [caller.id, request.end_user, app.name, app.dify.url, app.dify.key]
        self._scope = Scope(secret, chain(secret, [("scope", msgspec.json.encode(parts).decode())]))
        system = sent_system(request, rules)
        self._system = chain(secret, [("system", system)])[:8]
        inputs = ("inputs", sent_inputs(request, self._profile, rules))
        origin = request.origin
        if origin is not None:
            known = origin.scope == self._scope.link
            link = origin.link if known else chain(secret, [("after", origin.name)], self._scope.link)
            self.link = chain(secret, fold(request.history), link)
        elif self._by_chat:
            begin = [("chat", request.chat_id or ""), inputs]
            self.link = chain(secret, [*begin, *fold_replies(request.history)], self._scope.link)
        else:
            self.link = chain(secret, [("system", system), inputs, *fold(request.history)], self._scope.link)

    @property
    def _by_chat(self) -> bool:
        """Whether the client tells its chats and users apart itself: such clients may rewrite what the user wrote."""
        request = self._request
        return request.chat_id is not None and request.end_user is not None and request.origin is None

    @property
    def conversation_id(self) -> str | None:
        return self.continuation.conversation_id

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to do."""
        return not self._locks and (self._kept or self._scope is None)

    @property
    def long_ago(self) -> bool:
        return self._conversations.now() - self._at > LONG_AGO

    @property
    def can_begin_anew(self) -> bool:
        """Whether the client need not know that Dify lost the conversation: it sent along all that was said.

        Of a conversation that it named only if it was given that name here.
        """
        known = self._named is None or not self.unconfirmed
        return self.conversation_id is not None and known and self._has_history

    @property
    def _has_history(self) -> bool:
        return self._request.origin is not None or bool(fold(self._request.history))

    @property
    def scope(self) -> bytes:
        """Whose the conversation is, as a hash; empty while the state cannot be reached."""
        return b"" if self._scope is None else self._scope.link

    @property
    def asked_before(self) -> str | None:
        """A question that a model with a memory must have been shown, where it is not known to have one."""
        if self._profile.mode != "advanced-chat" or self.conversation_id is None or self.continuation.history:
            return None
        origin = self._request.origin
        question = last_question(self._request.history) or (origin.asked if origin is not None else None)
        return None if question is None else fold_text(question)

    async def find(self) -> None:
        """Takes the conversation that the history leads to."""
        if self._scope is None or self.link is None or not self._has_history:
            return
        key = _entry_key(self.link)
        results = await self._store.run(Take(key), *self._ask_forgetful())
        if results is None or results[0] is None:
            return
        entry = _read_entry(results[0])
        self._taken = (key, results[0])
        self._head = key
        self._go_on(entry.conversation_id, entry.system, entry.at, forgetful=any(results[1:]))

    async def go_on_in(self, conversation_id: str, gone: Callable[[], bool]) -> None:
        """Locks a conversation that the client names, once no other turn of it goes on. Raises ConversationBusy."""
        self._named = conversation_id
        self.unconfirmed = True
        self.continuation = Continuation(conversation_id, history=False)
        scope = self._scope
        if scope is None:
            return
        lock = Lock(self._store, scope.key("busy", conversation_id))
        self._locks.append(lock)
        owned = Get(scope.key("owned", conversation_id))
        results = await lock.acquire(gone, (owned, *self._ask_forgetful()), param="conversation_id")
        if results is not None and results[0] is not None:
            known = await self._take_head(_read_owned(results[0]), owned, gone)
            self.unconfirmed = False
            forgetful = any(results[1:]) and self._has_history
            self._go_on(conversation_id, known.system, known.at, forgetful=forgetful)

    async def _take_head(self, known: ConversationRecord, asking: Get, gone: Callable[[], bool]) -> ConversationRecord:
        """Takes the entry to a conversation that was named, so that nobody comes in by its history.

        If somebody has, the end of that turn is waited for. It may never come, if its process died.
        """
        patience = PATIENCE
        while known.head and not gone():
            results = await self._store.run(Take(known.head), asking)
            if results is None:
                break
            if results[0] is not None:
                if _read_entry(results[0]).conversation_id == self._named:
                    self._taken = (known.head, results[0])
                else:  # of another conversation, in which the very same was said
                    await self._store.run(Put(known.head, results[0], self._conversations.ttl))
                break
            latest = known if results[1] is None else _read_owned(results[1])
            if latest.head == known.head and patience <= 0:
                break
            if latest.head == known.head:
                await asyncio.sleep(STEP)
                patience -= STEP
            known = latest
        self._head = known.head
        return known

    def _go_on(self, conversation_id: str, system: bytes, at: float, *, forgetful: bool) -> None:
        """A model without a memory is told all of it each time; the others only what is new."""
        self._at = at
        self.not_before = at + SECOND
        self.continuation = Continuation(conversation_id, history=forgetful, system=forgetful or system != self._system)

    def begin_anew(self) -> None:
        """Dify has lost the conversation."""
        log.info("conversation_lost")
        self._taken = None
        self.continuation = BEGINNING

    async def give_back(self) -> None:
        """The request never reached Dify: what was taken is there again for the next one."""
        operations = [operation for lock in self._locks for operation in lock.undo]
        if self._taken is not None:
            operations.append(Put(*self._taken, self._conversations.ttl))
        await self.close(*operations)

    def extend(self, reply: str) -> None:
        """Moves ``link`` on to the history that the client has once it is given ``reply``, as it is sent."""
        if self._scope is not None and self.link is not None:
            answer = HistoryMessage("assistant", reply)
            said = [answer] if self._by_chat else [*self._request.asked, answer]
            self.link = chain(self._scope.secret, fold(said), self.link)

    async def keep(
        self, conversation_id: str | None, at: float, remembers: bool | None, also: Sequence[Operation] = ()
    ) -> None:
        """Remembers where ``link`` leads, and does what else there is to do in the same round trip.

        ``conversation_id`` is Dify's, ``at`` when it began the turn (seconds since the epoch), ``remembers`` whether
        the model was shown the conversation.
        """
        scope, link = self._scope, self.link
        if scope is None or link is None or conversation_id is None:
            if also:
                await self._store.run(*also)
            return
        head = _entry_key(link) if self._app.conversations == "auto" else ""
        entry = ConversationEntry(conversation_id, at, self._system)
        operations: list[Operation] = [
            self._owning(scope, entry, head),
            Get(scope.key("busy", conversation_id)),
        ]
        if head:
            operations.append(Put(head, _encode(entry), self._conversations.ttl))
        if remembers is False:
            operations.append(Put(self._forgetful_key(), b"1", FORGETFUL_SECONDS))
            log.info("model_without_memory", app=self._app.name)
        results = await self._store.run(*operations, *also, *await self._released())
        if results is not None:
            await self._set_right(scope, entry, head, results)
        self._kept = True

    async def _set_right(self, scope: Scope, own: ConversationEntry, head: str, before: Sequence[bytes | None]) -> None:
        """Once what this turn leaves is written: ``before`` is what was there, its conversation, lock and entry."""
        operations: list[Operation] = []
        other = own if not head or before[2] is None else _read_entry(before[2])
        if other.conversation_id != own.conversation_id:
            # The very same was said in it, and no history leads to it any more: nobody is to wait for one that does.
            operations.append(self._owning(scope, other, ""))
        if own.conversation_id == self.conversation_id and not self.unconfirmed:
            latest = self._head if before[0] is None else _read_owned(before[0]).head
            if latest != self._head or (self._named is None and before[1] is not None):
                # Somebody names it, or went on with it meanwhile: then no history leads to it any more.
                operations += [self._owning(scope, own, ""), *(Take(key) for key in {head, latest} if key)]
        if operations:
            await self._store.run(*operations)

    async def hold(self, conversation_id: str | None) -> None:
        """Locks a conversation in which a turn is being stopped; nothing if it is locked."""
        if self._scope is not None and conversation_id is not None and not self._locks:
            lock = Lock(self._store, self._scope.key("busy", conversation_id))
            with suppress(ConversationBusy):  # somebody has named it already
                await lock.acquire(lambda: False, [self._ending(self._scope, conversation_id)], patience=0)
                self._locks.append(lock)

    async def end(self, conversation_id: str | None) -> None:
        """After a turn that is not to be gone on from, and which was begun in its conversation all the same."""
        operations: list[Operation] = []
        name = conversation_id or (None if self.unconfirmed else self.conversation_id)
        if self._scope is not None and name is not None and not self._kept:
            operations.append(self._ending(self._scope, name))
        await self.close(*operations)

    def _ending(self, scope: Scope, conversation_id: str) -> Operation:
        return self._owning(scope, ConversationEntry(conversation_id, self._conversations.now(), self._system), "")

    def _owning(self, scope: Scope, entry: ConversationEntry, head: str) -> Operation:
        owned = _encode(ConversationRecord(head, entry.at, entry.system))
        return Put(scope.key("owned", entry.conversation_id), owned, self._conversations.ttl)

    async def close(self, *operations: Operation) -> None:
        """Gives back the locks, if there are any, and does ``operations`` together with that."""
        operations = (*operations, *await self._released())
        if operations:
            await self._store.run(*operations)

    async def _released(self) -> list[Operation]:
        locks, self._locks = self._locks, []
        return [operation for lock in locks for operation in await lock.releasing()]

    def _ask_forgetful(self) -> list[Operation]:
        return [Get(self._forgetful_key())] if self._profile.mode == "advanced-chat" else []

    def _forgetful_key(self) -> str:
        scope, dify = self._scope, self._app.dify
        assert scope is not None
        return f"forgetful:{chain(scope.secret, [('url', dify.url), ('key', dify.key)]).hex()}"


def _entry_key(link: bytes) -> str:
    return f"conversation:{link.hex()}"
