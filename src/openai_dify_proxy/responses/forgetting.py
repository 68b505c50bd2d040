"""Erase what is stored for one end user of a caller: here, and the conversations in Dify.

Stored responses, conversation objects, files and files of apps hold the hash of their end user, so the entries of the
caller are searched for it. The entries that lead from chats to Dify's conversations are found by those conversations,
which Dify lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from openai_dify_proxy.errors import ConversationNotFound, ProxyError, ResponseNotFound
from openai_dify_proxy.files.artifacts.records import ARTIFACT, hash_user, read_artifact
from openai_dify_proxy.files.artifacts.storage import ArtifactStorage
from openai_dify_proxy.files.stored_files import StoredFile, StoredFiles
from openai_dify_proxy.responses.event_log import EventLogs
from openai_dify_proxy.responses.response_store import (
    ResponseStore,
    StoredConversation,
    StoredResponse,
    state_unreachable,
)
from openai_dify_proxy.state.store import Get, Operation, Take
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller, user_in_dify
from openai_dify_proxy.turns.conversation_entries import read_record
from openai_dify_proxy.turns.scopes import scope_of
from openai_dify_proxy.upstream.dify import DifyClient

KINDS = ("resp", "conv", "file", ARTIFACT)
"""The kinds of entries that hold the hash of their end user."""

MAX_CONVERSATIONS = 10_000
"""Conversations of one app that are deleted."""

_WITHOUT_CONVERSATIONS = frozenset({"not_chat_app", "app_unavailable"})

_RESPONSE = msgspec.msgpack.Decoder(StoredResponse)
_CONVERSATION = msgspec.msgpack.Decoder(StoredConversation)
_FILE = msgspec.msgpack.Decoder(StoredFile)


class Forgotten(Struct):
    """What was erased, and one sentence for each app whose conversations could not be deleted."""

    responses: int = 0
    conversations: int = 0
    files: int = 0
    artifacts: int = 0
    dify_conversations: int = 0
    problems: list[str] = msgspec.field(default_factory=list)


class _EndUser(Struct, frozen=True):
    """An end user of a caller; ``user`` is its name in Dify, and ``secret`` the key of the state's hashes.

    Entries hold the hash ``entries``, and those of files of apps the hash ``artifacts``.
    """

    caller: Caller
    name: str
    user: str
    secret: bytes
    entries: bytes
    artifacts: bytes


class EndUserEraser:
    """Erases the data of end users. ``plain`` says whether Dify knows them by their own names."""

    def __init__(
        self,
        stored: ResponseStore,
        logs: EventLogs,
        files: StoredFiles,
        artifacts: ArtifactStorage,
        dify: DifyClient,
        *,
        plain: bool,
    ) -> None:
        self._stored = stored
        self._logs = logs
        self._files = files
        self._artifacts = artifacts
        self._dify = dify
        self._plain = plain

    async def erase(
        self, caller: Caller, end_user: str, secret: bytes, keys: Sequence[str], apps: Iterable[App]
    ) -> Forgotten:
        """Erase everything of an end user. ``keys`` are those of the caller's entries of ``KINDS``.

        Raises StateUnreachable. A failure of Dify is in the result.
        """
        forgotten = Forgotten()
        entries = await self._stored.responses.end_user_hash(end_user)
        user = user_in_dify(secret, caller, end_user, plain=self._plain)
        whom = _EndUser(caller, end_user, user, secret, entries, hash_user(secret, user))
        for key in keys:
            await self._erase_entry(whom, key, forgotten)
        for app in apps:
            try:
                await self._erase_in_dify(app, whom, forgotten)
            except ProxyError as error:
                if error.code not in _WITHOUT_CONVERSATIONS:
                    forgotten.problems.append(f"{app.name}: {error.with_reason}")
        return forgotten

    async def _erase_entry(self, whom: _EndUser, key: str, forgotten: Forgotten) -> None:
        caller, whose = whom.caller, whom.entries
        (value,) = await self._run(Get(key, large=True))
        decode = self._stored.store.decode
        kind = key.partition(":")[0]
        if kind == "resp" and (response := decode(key, value, _RESPONSE.decode)) and response.end_user == whose:
            await self._run(Take(key, caller.id), *await self._log_of(caller, response))
            forgotten.responses += 1
        elif kind == "conv" and (item := decode(key, value, _CONVERSATION.decode)) and item.end_user == whose:
            await self._run(Take(key, caller.id))
            forgotten.conversations += 1
        elif kind == "file" and (file := decode(key, value, _FILE.decode)) and file.end_user == whose:
            await self._files.remove(caller.id, file)
            forgotten.files += 1
        elif kind == ARTIFACT and (artifact := decode(key, value, read_artifact)) and artifact.user == whom.artifacts:
            await self._artifacts.remove(artifact.storage_name)
            await self._run(Take(key, caller.id))
            forgotten.artifacts += 1

    async def _log_of(self, caller: Caller, stored: StoredResponse) -> list[Operation]:
        """Return the operations that remove the events of a response, if it ran in the background."""
        try:
            name = self._stored.response_of("", stored).id
            return self._logs.remove_operations(caller, name, await self._logs.progress(name))
        except ResponseNotFound:
            return []

    async def _erase_in_dify(self, app: App, whom: _EndUser, forgotten: Forgotten) -> None:
        deleted: set[str] = set()
        while found := [name for name in await self._dify.conversations(app.dify, whom.user) if name not in deleted]:
            for name in found:
                await self._erase_conversation(app, whom, name)
            deleted.update(found)
            forgotten.dify_conversations += len(found)
            if len(deleted) >= MAX_CONVERSATIONS:
                forgotten.problems.append(f"{app.name}: there are more conversations. Run the command again.")
                return

    async def _erase_conversation(self, app: App, whom: _EndUser, name: str) -> None:
        """Delete a conversation in Dify, and remove the entries that lead to it."""
        try:
            await self._dify.delete_conversation(app.dify, name, whom.user)
        except ConversationNotFound:
            pass  # someone else has deleted it
        key = scope_of(whom.secret, whom.caller, whom.name, app).key("owned", name)
        (value,) = await self._run(Take(key, whom.caller.id))
        record = self._stored.store.decode(key, value, read_record)
        if record is not None and record.head:
            await self._run(Take(record.head, whom.caller.id))

    async def _run(self, *operations: Operation) -> list[bytes | None]:
        results = await self._stored.store.run(*operations)
        if results is None:
            raise state_unreachable()
        return results
