"""The claim of a turn on its conversation: taken before the request to Dify, committed or released afterwards.

An entry in the state leads from a history to Dify's conversation. Reading the entry removes it, and the finished turn
stores a new one for the longer history. So only one of several requests with the same history continues the
conversation; the others (a regeneration, a retry, a request after a failed turn) start a new one with a transcript.

A conversation that the client names by Dify's id is locked instead, so that its turns run one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial

import structlog
from msgspec import field

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Get, Operation, Put, Take
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.request import BEGINNING, Continuation, sent_inputs, sent_system
from openai_dify_proxy.translate.history import (
    KIND,
    SYSTEM,
    Fingerprint,
    has_content,
    keyed_hash,
    last_question,
    normalize,
    replies,
    with_files,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.claim_timing import ClaimTiming
from openai_dify_proxy.turns.conversation_entries import (
    ConversationEntry,
    ConversationRecord,
    encode_entry,
    pause_pointer,
    read_entry,
    read_record,
)
from openai_dify_proxy.turns.instruction_memory import InstructionMemory
from openai_dify_proxy.turns.locks import ConversationTaken, Lock
from openai_dify_proxy.turns.scopes import Scope, fingerprint_of, scope_of

LONG_AGO = 600.0
"""Seconds after a conversation's last turn until its existence is checked first, if Dify's version hides its loss."""

FORGETFUL_SECONDS = 24 * 3600.0
"""How long a chatflow counts as one without memory after that was detected."""

MAX_CACHED_SYSTEM = 4096
"""Characters of a system message whose hash is cached."""

log = structlog.get_logger(__name__)


class ConversationClaim(Entity):
    """The claim of one turn on its conversation.

    ``continuation`` describes the request to Dify, ``not_before`` is its earliest time (seconds since the epoch).
    ``unconfirmed`` means that the proxy knows the conversation only from the client. ``awaits_head`` is false once the
    turn has waited long enough for a turn that holds its entry: the process of that one may have died. ``commit`` is
    for an answered turn. The turn's context manager calls ``release`` if no request was sent to Dify, and ``abandon``
    unless the claim is settled. ``paused`` names the pause that the conversation waits in, if a run has paused in it;
    ``pauses`` that of this turn, and is set before its end.
    """

    _store: GuardedStore
    _ttl: float
    """Seconds."""
    _now: Callable[[], float]
    """A clock in seconds since the epoch."""
    _timing: ClaimTiming
    _app: App
    _request: TurnRequest
    _locks: list[Lock]
    """The locks that the claim holds."""
    continuation: Continuation = BEGINNING
    not_before: float = 0.0
    unconfirmed: bool = False
    awaits_head: bool = True
    paused: str = ""
    pauses: str = ""
    _known: ConversationEntry | ConversationRecord | None = None
    _unasked: bool = False
    _chatflow: bool = False
    _by_chat: bool = False
    """Whether the client sends ids of its chats and users; such clients may rewrite the user's messages."""
    _owner: str = ""
    _scope: Scope | None = None
    _fingerprint: Fingerprint | None = None
    _system: bytes = b""
    _told: InstructionMemory = field(default_factory=InstructionMemory)
    _at: float = 0.0
    _taken: tuple[str, bytes] | None = None
    _named: str | None = None
    _committed: bool = False
    _head: str = ""
    _link_after: tuple[HistoryMessage, bytes] | None = None

    # State of the claim

    @property
    def conversation_id(self) -> str | None:
        return self.continuation.conversation_id

    @property
    def settled(self) -> bool:
        """Whether nothing is left to release."""
        return not self._locks and (self._committed or self._scope is None)

    @property
    def long_ago(self) -> bool:
        return self._now() - self._at > LONG_AGO

    @property
    def can_restart(self) -> bool:
        """Whether the turn can start a new conversation if Dify lost this one: the client sent the history.

        If the client named the conversation, this proxy must also have issued its id.
        """
        known = self._named is None or not self.unconfirmed
        return self.continuation.conversation_id is not None and known and self.has_history

    @property
    def has_history(self) -> bool:
        """Whether the request has earlier messages."""
        request = self._request
        return request.stored_history is not None or (bool(request.history) and has_content(request.history))

    @property
    def scope(self) -> bytes:
        """The scope as a hash; empty while the state cannot be reached."""
        return b"" if self._scope is None else self._scope.link

    @property
    def asked_before(self) -> str | None:
        """An earlier question that shows whether a chatflow's model has a memory; None if that is known."""
        if not self._chatflow or self.conversation_id is None or self.continuation.history:
            return None
        if self._known is not None and self._known.unasked:
            return None
        stored = self._request.stored_history
        question = last_question(self._request.history) or (stored.asked if stored is not None else None)
        return None if question is None else normalize(question)

    def link_after(self, reply: HistoryMessage) -> bytes:
        """Return the fingerprint of the history that ends with ``reply``; empty while the state is unreachable."""
        if self._fingerprint is None:
            return b""
        if self._link_after is not None and self._link_after[0] == reply:
            return self._link_after[1]
        asked = self._request.asked
        if self._request.stored_history is not None:  # its fingerprint does not have the files of the body
            asked = with_files(asked, self._request.files)
        added = [*(replies(asked) if self._by_chat else asked), reply]
        link = self._fingerprint.after(added)
        self._link_after = (reply, link)  # needed twice if the reply is stored as a response
        return link

    # Taking

    def instruct(self, instructions: str, remind_after: int) -> None:
        """Tell the model ``instructions`` unless it knows them, and remind it after ``remind_after`` turns."""
        self._told = InstructionMemory(instructions, remind_after)

    def ask_nothing(self) -> None:
        """Record that the turn sends Dify no question, so that the model learns nothing from it."""
        self._unasked = True
        self._told = InstructionMemory()
        if self._known is not None:
            self._system = self._known.system
            self._told.digest, self._told.turns = self._known.instructions, self._known.turns

    def fingerprint(self, secret: bytes, caller: Caller, profile: AppProfile) -> None:
        """Compute the scope, and the fingerprint of all earlier messages, once."""
        if self._fingerprint is not None:
            return
        request, app = self._request, self._app
        self._owner = caller.id
        self._chatflow = profile.mode == "advanced-chat"
        named = request.chat_id is not None and request.end_user is not None
        self._by_chat = named and request.stored_history is None
        self._scope = scope = scope_of(secret, caller, request.end_user, app)
        system = sent_system(request, app.rules)
        self._system = _digest_of(secret, system) if len(system) <= MAX_CACHED_SYSTEM else _hash_of(secret, system)
        self._told.hash(secret)
        inputs = sent_inputs(request, profile, app.rules)
        self._fingerprint = fingerprint_of(scope, request, system, inputs, by_chat=self._by_chat)

    async def take_by_history(self) -> None:
        """Take the conversation of the history, if there is one."""
        if self._fingerprint is None:
            return
        link = self._fingerprint.digest()
        key = _entry_key(link)
        results = await self._store.run(Take(key, self._owner), *self._get_forgetful(), *self._get_pause(link))
        if results is None:
            return
        self.paused = (results[2] or b"").decode() if self._chatflow else ""
        if results[0] is None:
            return
        entry = self._store.decode(key, results[0], read_entry)
        if entry is None:
            return
        self._taken = (key, results[0])
        self._head = key
        self._continue(entry.conversation_id, entry, forgetful=any(results[1:2]))

    async def take_named(self, conversation_id: str) -> None:
        """Lock a conversation that the client names. Raises ConversationTaken while another turn runs in it."""
        self._named = conversation_id
        self.unconfirmed = True
        self.continuation = Continuation(conversation_id, history=False)
        scope = self._scope
        if scope is None:
            return
        lock = Lock(self._store, scope.key("busy", conversation_id), self._owner)
        get_record = Get(scope.key("owned", conversation_id))
        results = await lock.try_acquire((get_record, *self._get_forgetful()), param="conversation_id")
        self._locks.append(lock)
        record = None if results is None else self._store.decode(get_record.key, results[0], read_record)
        if results is not None and record is not None:
            known = await self._take_head(lock, record, get_record)
            self.paused = known.paused
            self.unconfirmed = False
            forgetful = any(results[1:]) and self.has_history
            self._continue(conversation_id, known, forgetful=forgetful)

    async def _take_head(self, lock: Lock, known: ConversationRecord, get_record: Get) -> ConversationRecord:
        """Take the entry of a named conversation, so that no other request continues it by its history.

        If another turn holds the entry, and ``awaits_head`` is true, release the lock and raise ConversationTaken.
        """
        while known.head:
            results = await self._store.run(Take(known.head, self._owner), get_record)
            if results is None:
                break
            if results[0] is not None:
                entry = self._store.decode(known.head, results[0], read_entry)
                if entry is not None and entry.conversation_id == self._named:
                    self._taken = (known.head, results[0])
                elif entry is not None:  # the entry of another conversation with the same messages
                    await self._store.run(Put(known.head, results[0], self._ttl, self._owner, deferred=True))
                break
            latest = self._store.decode(get_record.key, results[1], read_record) or known
            if latest.head == known.head:
                if not self.awaits_head:
                    break
                self._locks.remove(lock)
                await self._store.run(*await lock.release_operations())
                raise ConversationTaken(get_record.key, partial(self._is_head_free, known.head, get_record), None)
            known = latest
        self._head = known.head
        return known

    async def _is_head_free(self, head: str, get_record: Get) -> bool:
        """Return whether the entry ``head`` is back, or the record names another one."""
        results = await self._store.run(Get(head), get_record)
        if results is None or results[0] is not None:
            return True
        record = self._store.decode(get_record.key, results[1], read_record)
        return record is None or record.head != head

    def skip_history(self) -> None:
        """Send only the last question, without the earlier messages."""
        self.continuation = Continuation(history=False)

    def _continue(
        self, conversation_id: str, known: ConversationEntry | ConversationRecord, *, forgetful: bool
    ) -> None:
        """Continue a conversation: a model without memory receives the whole history, any other only new messages."""
        self._at = known.at
        self._known = known
        self.not_before = known.at + self._timing.turn_spacing
        self.continuation = Continuation(
            conversation_id,
            history=forgetful,
            system=forgetful or known.system != self._system,
            instructions=self._told.extent(known.instructions, known.turns, forgetful=forgetful),
        )

    def restart(self) -> None:
        """Start a new conversation with a transcript, since Dify has lost this one."""
        log.info("conversation_lost")
        self._taken = None
        self._told.turns = 0
        self.continuation = BEGINNING

    # Ending

    async def release(self) -> None:
        """Put the taken entry back after a turn that sent no request to Dify, so that the next request continues it."""
        operations = [operation for lock in self._locks for operation in lock.undo]
        if self._taken is not None:
            operations.append(Put(*self._taken, self._ttl, self._owner, deferred=True))
        await self._run_and_unlock(operations)

    async def commit(
        self,
        reply: HistoryMessage,
        *,
        conversation_id: str | None,
        at: float,
        remembers: bool | None,
        also: Sequence[Operation] = (),
    ) -> None:
        """Store the entry of the history that ends with ``reply``, and run ``also`` in the same round trip.

        ``conversation_id`` is Dify's, or None if no request may continue the turn. ``at`` is the turn's start (seconds
        since the epoch). ``remembers`` says whether the model was shown the conversation (None if unknown).
        """
        scope, link = self._scope, self.link_after(reply)
        if scope is None or not link or conversation_id is None:
            if also:
                await self._store.run(*also)
            return
        head = _entry_key(link) if self._app.conversations == "auto" else ""
        entry = self._entry(conversation_id, at)
        operations: list[Operation] = [
            self._put_record(scope, entry, head),
            Get(scope.key("busy", conversation_id)),
        ]
        if head:
            operations.append(Put(head, encode_entry(entry), self._ttl, self._owner, deferred=True))
        if remembers is False:
            operations.append(Put(self._forgetful_key(), b"1", FORGETFUL_SECONDS, self._owner, deferred=True))
            log.info("missing_memory_detected", app=self._app.name)
        unlock = await self._unlock_operations() if self._locks else ()
        results = await self._store.run(*operations, *also, *unlock)
        if results is not None and results[: len(operations)] != [None] * len(operations):
            resolution = self._resolve_conflicts(scope, entry, head, results)
            if resolution:
                await self._store.run(*resolution)
        self._committed = True

    def _resolve_conflicts(
        self, scope: Scope, own: ConversationEntry, head: str, before: Sequence[bytes | None]
    ) -> list[Operation]:
        """Return the operations that resolve conflicts with other turns that committed in the meantime.

        ``before`` holds the values that the commit replaced: the conversation's record, its lock, the entry ``head``.
        """
        operations: list[Operation] = []
        other = (self._store.decode(head, before[2], read_entry) if head else None) or own
        if other.conversation_id != own.conversation_id:
            # It had the same messages. No history leads to it any more, so no turn needs to wait for its head.
            operations.append(self._put_record(scope, other, "", pauses=""))
        if own.conversation_id == self.conversation_id and not self.unconfirmed:
            record = self._store.decode(scope.key("owned", own.conversation_id), before[0], read_record)
            latest = self._head if record is None else record.head
            if latest != self._head or (self._named is None and before[1] is not None):
                # Another turn names this conversation, or has continued it: no history may lead to it any more.
                operations += [
                    self._put_record(scope, own, ""),
                    *(Take(key, self._owner) for key in {head, latest} if key),
                ]
        return operations

    async def abandon(self, conversation_id: Callable[[], str | None], stopped: asyncio.Task[None] | None) -> None:
        """End the claim of a turn that no request may continue.

        ``conversation_id`` returns Dify's id, which may become known only while the run is being stopped. The
        conversation stays locked until ``stopped`` ends, since the run continues in Dify until then.
        """
        if stopped is not None:
            await self._lock_while_stopping(conversation_id())
            await asyncio.wait([stopped])
        operations: list[Operation] = []
        name = conversation_id() or (None if self.unconfirmed else self.conversation_id)
        if self._scope is not None and name is not None and not self._committed:
            operations.append(self._end_operation(self._scope, name))
        await self._run_and_unlock(operations)

    async def _lock_while_stopping(self, conversation_id: str | None) -> None:
        if self._scope is not None and conversation_id is not None and not self._locks:
            lock = Lock(self._store, self._scope.key("busy", conversation_id), self._owner)
            with suppress(ConversationTaken):  # another turn has named it already
                await lock.try_acquire([self._end_operation(self._scope, conversation_id)])
                self._locks.append(lock)

    async def _run_and_unlock(self, operations: Sequence[Operation]) -> None:
        operations = (*operations, *await self._unlock_operations())
        if operations:
            await self._store.run(*operations)

    async def _unlock_operations(self) -> list[Operation]:
        locks, self._locks = self._locks, []
        return [operation for lock in locks for operation in await lock.release_operations()]

    # Entries and keys

    def _end_operation(self, scope: Scope, conversation_id: str) -> Operation:
        return self._put_record(scope, self._entry(conversation_id, self._now()), "")

    def _entry(self, conversation_id: str, at: float) -> ConversationEntry:
        told = self._told
        return ConversationEntry(conversation_id, at, self._system, told.digest, told.turns, self._unasked)

    def _put_record(self, scope: Scope, entry: ConversationEntry, head: str, *, pauses: str | None = None) -> Operation:
        about = entry.at, entry.system, entry.instructions, entry.turns, entry.unasked
        record = ConversationRecord(head, *about, self.pauses if pauses is None else pauses)
        key = scope.key("owned", entry.conversation_id)
        return Put(key, encode_entry(record), self._ttl, self._owner, deferred=True)

    def _get_forgetful(self) -> list[Operation]:
        return [Get(self._forgetful_key())] if self._chatflow else []

    def _get_pause(self, link: bytes) -> list[Operation]:
        return [Get(pause_pointer(link))] if self._chatflow else []

    def _forgetful_key(self) -> str:
        scope, dify = self._scope, self._app.dify
        assert scope is not None
        return f"forgetful:{keyed_hash(scope.secret, (KIND, dify.url), (KIND, dify.key)).hex()}"


def _hash_of(secret: bytes, system: str) -> bytes:
    return keyed_hash(secret, (SYSTEM, system))[:8]


_digest_of = lru_cache(maxsize=1024)(_hash_of)


def _entry_key(link: bytes) -> str:
    return f"conversation:{link.hex()}"
