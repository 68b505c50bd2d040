"""The entries of paused runs in the state: by the form's token, and by the conversation that waits.

An entry belongs to a scope (caller, end user, app, app key), so nobody answers the forms of others. It is marked as
answered before the form is submitted, in one atomic step: of several answers at once, one is submitted. After a crash
in between, none is.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from openai_dify_proxy.errors import StateUnreachable
from openai_dify_proxy.events import HumanInput, TurnIds, Usage
from openai_dify_proxy.state.store import Add, Get, Operation, Put
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.conversation_entries import PausedRun, encode_entry, pause_pointer, read_paused_run
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.scopes import Scope, scope_of

_KIND = "pause"


class Pauses:
    """Stores, finds and marks paused runs."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def scope(self, caller: Caller, app: App, end_user: str | None) -> Scope | None:
        """Return the scope of a request's pauses; None if the state is unreachable."""
        secret = await self._conversations.secret()
        return None if secret is None else scope_of(secret, caller, end_user, app)

    async def load(self, scope: Scope, name: str) -> PausedRun | None:
        """Return the paused run with this name in the scope. Raises StateUnreachable."""
        key = scope.key(_KIND, name)
        results = await self._conversations.store.run(Get(key))
        if results is None:
            raise _unreachable()
        return self._conversations.store.decode(key, results[0], read_paused_run)

    async def mark(self, scope: Scope, caller: str, run: PausedRun, *, answered: bool) -> PausedRun | None:
        """Store whether the run's form was answered, and return the entry before. Raises StateUnreachable.

        ``caller`` is the id of the caller.
        """
        entry = encode_entry(structs.replace(run, answered=answered))
        key = scope.key(_KIND, run.name)
        results = await self._conversations.store.run(Put(key, entry, self._conversations.ttl, caller))
        if results is None:
            raise _unreachable()
        return self._conversations.store.decode(key, results[0], read_paused_run)

    async def put_operations(
        self, caller: Caller, app: App, end_user: str | None, run: PausedRun, link: bytes
    ) -> Sequence[Operation]:
        """Return the operations that store a pause after the history ``link`` (empty for none).

        A run that is stored already, since its form was only shown again, keeps its entry.
        """
        scope = await self.scope(caller, app, end_user)
        if scope is None:
            return ()
        ttl = self._conversations.ttl
        operations: list[Operation] = [Add(scope.key(_KIND, run.name), encode_entry(run), ttl, caller.id)]
        if link:
            operations.append(Put(pause_pointer(link), run.name.encode(), ttl, caller.id))
        return operations


def paused_run(form: HumanInput, ids: TurnIds, usage: Usage | None) -> PausedRun | None:
    """Return the entry of a run that has paused and used ``usage`` so far; None if Dify has not named the run."""
    if ids.workflow_run_id is None:
        return None
    return PausedRun(
        ids.workflow_run_id,
        form.token or "",
        ids.task_id or "",
        ids.conversation_id or "",
        ids.message_id or "",
        form.characters,
        tuple((action.id, action.title) for action in form.actions),
        form.channels,
        usage=usage,
    )


def ids_of(run: PausedRun) -> TurnIds:
    """Return Dify's ids of a paused run."""
    return TurnIds(run.task_id or None, run.message_id or None, run.conversation_id or None, run.run_id)


def _unreachable() -> StateUnreachable:
    return StateUnreachable("The state that holds the paused run is unreachable. Try again in a moment.", retry_after=1)
