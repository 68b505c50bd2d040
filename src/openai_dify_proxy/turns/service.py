"""From a request to a running turn: the app, its profile, Dify's request body, and the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from msgspec import Struct, json, structs

from openai_dify_proxy.errors import ConversationNotFound
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state.store import Operation
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.dify.request import generate_path, make_generate_request, stop_path
from openai_dify_proxy.translate.dify.transcript import Transcript
from openai_dify_proxy.translate.openai.stop_sequences import StopSequences
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.apps import App, Apps
from openai_dify_proxy.turns.callers import MAX_DIFY_USER, Caller, dify_user
from openai_dify_proxy.turns.conversations import SECOND, ConversationClaim, Conversations
from openai_dify_proxy.turns.locks import Lock
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.stopping import Stopper
from openai_dify_proxy.turns.turn import ClientGone, Turn, TurnLimits
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.http import Exchange
from openai_dify_proxy.wire.dify import MessageRow

Recall = Callable[[], Awaitable[tuple[HistoryMessage, ...]]]

_encode = json.Encoder().encode


class ActiveTurn(Struct, frozen=True):
    """A turn under way, the app that answers it, and the conversation that it belongs to."""

    turn: Turn
    model: str
    profile: AppProfile
    thread: ConversationClaim


class Turns:
    """Begins turns, remembers what they answered, and takes care of those that lose their client."""

    def __init__(
        self, settings: Settings, apps: Apps, profiles: Profiles, dify: DifyClient, conversations: Conversations
    ) -> None:
        self._apps = apps
        self._profiles = profiles
        self._dify = dify
        self._conversations = conversations
        self._transcript = Transcript(settings.transcript_template)
        self._plain_users = settings.end_user_id == "plain"
        self._limits = TurnLimits(settings.silence_timeout, settings.turn_timeout)
        self._stopper = Stopper(dify)
        self._running = 0
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._closing: set[asyncio.Task[None]] = set()

    async def begin(
        self,
        caller: Caller,
        model: str | None,
        request: TurnRequest,
        *,
        gone: Callable[[], bool] = lambda: False,
        recall: Recall | None = None,
        lock: Lock | None = None,
    ) -> ActiveTurn:
        """Asks Dify. Raises ProxyError before anything was sent, and never after; or ClientGone if ``gone`` says so.

        ``recall`` gives the history of a request that goes on from something kept here, and is asked only when a
        transcript is needed. ``lock`` is held until the turn's end.
        """
        try:
            app = self._apps.choose(caller, model)
            profile = self._profiles.cached(app.dify) or await self._profiles.get(app.dify, app.mode)
            user = await self._user(app, caller, request.end_user)
            thread = await self._conversations.open(caller, app, profile, request, gone=gone, lock=lock)
        except BaseException:
            if lock is not None:
                await lock.release()
            raise
        question = _PendingTurn(app, profile, request, user, thread, recall)
        try:
            exchange, decoder = await self._ask_first(question, gone)
        except BaseException:
            await thread.give_back()
            raise
        self._running += 1
        self._all_ended.clear()
        turn = Turn(
            exchange,
            decoder,
            app=app.dify,
            user=user,
            stop=StopSequences(request.stop) if request.stop else None,
            limits=self._limits,
            conversation_id=thread.conversation_id,
            begin_anew=(lambda lost: self._begin_anew(question, lost)) if thread.can_begin_anew else None,
        )
        return ActiveTurn(turn, model or app.name, profile, thread)

    async def keep(self, running: ActiveTurn, also: Sequence[Operation] = ()) -> None:
        """To be called when the turn has finished and ``thread.extend`` was told what it said, before the client is.

        Remembers the conversation, and does what else is to be done in the same round trip.
        """
        turn, thread = running.turn, running.thread
        at = self._conversations.now() - turn.seconds_since_first_event
        conversation_id = None if turn.cut_short else turn.ids.conversation_id
        await thread.keep(conversation_id, at, turn.remembers, also)

    async def messages(self, caller: Caller, model: str | None, conversation_id: str, user: str) -> list[MessageRow]:
        """What was said in a conversation of Dify's, oldest first. Raises ProxyError."""
        return await self._dify.messages(self._apps.choose(caller, model).dify, conversation_id, user)

    async def delete_conversation(self, caller: Caller, model: str | None, conversation_id: str, user: str) -> None:
        """Raises ProxyError."""
        await self._dify.delete_conversation(self._apps.choose(caller, model).dify, conversation_id, user)

    async def stop(self, caller: Caller, model: str | None, task_id: str, user: str) -> None:
        """Stops a turn that another process began, or one that is gone. Raises ProxyError."""
        app = self._apps.choose(caller, model)
        profile = await self._profiles.get(app.dify, app.mode)
        await self._dify.stop(app.dify, stop_path(profile.mode, task_id), user)

    def end(self, running: ActiveTurn) -> None:
        """Call once for every turn that began, whatever became of it."""
        self._running -= 1
        if not self._running:
            self._all_ended.set()
        stopping = self._stopper.abandon(running.turn, running.profile.mode)
        if not running.thread.settled:
            task = asyncio.get_running_loop().create_task(_settle(running, stopping))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self, timeout: float) -> None:
        """Waits until all turns have ended and those abandoned are stopped; at most ``timeout`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._all_ended.wait()
        await self._stopper.close(timeout)
        await asyncio.gather(*self._closing)

    async def _user(self, app: App, caller: Caller, end_user: str | None) -> str:
        """Dify's ``user``; derived by the app's key while the state, which keeps the secret, cannot be reached."""
        if self._plain_users and caller.dify_key is None and end_user is not None and len(end_user) <= MAX_DIFY_USER:
            return end_user
        return dify_user(await self._conversations.secret() or app.dify.key.encode(), caller, end_user)

    async def _ask_first(self, question: _PendingTurn, gone: Callable[[], bool]) -> tuple[Exchange, DifyEventDecoder]:
        thread, profile = question.thread, question.profile
        if thread.conversation_id is not None:
            if profile.hides_lost_conversations and (thread.unconfirmed or thread.long_ago):
                await self._confirm(question, thread.conversation_id)
            await asyncio.sleep(min(SECOND, max(0.0, thread.not_before - self._conversations.now())))
        if gone():
            raise ClientGone
        return await self._ask(question)

    async def _confirm(self, question: _PendingTurn, conversation_id: str) -> None:
        """For a Dify that would hang on a conversation that it lost, or begin another."""
        try:
            await self._dify.confirm_conversation(question.app.dify, conversation_id, question.user)
        except ConversationNotFound:
            if not question.thread.can_begin_anew:
                raise
            question.thread.begin_anew()

    async def _begin_anew(self, question: _PendingTurn, lost: Turn) -> tuple[Exchange, DifyEventDecoder]:
        """Asks once more, in a new conversation with a transcript. Raises ProxyError."""
        question.thread.begin_anew()
        asked = await self._ask(question)
        self._stopper.abandon(lost, question.profile.mode)
        return asked

    async def _ask(self, question: _PendingTurn) -> tuple[Exchange, DifyEventDecoder]:
        """Sends the question as the conversation stands. Raises ProxyError if nothing was sent."""
        app, profile, thread = question.app, question.profile, question.thread
        request = question.request
        if thread.continuation.history and question.recall is not None:
            request = structs.replace(request, history=await question.recall())
        body = _encode(
            make_generate_request(
                request,
                profile,
                app.rules,
                question.user,
                continuation=thread.continuation,
                transcript=self._transcript,
            )
        )
        decoder = DifyEventDecoder(
            profile.mode,
            origin=app.dify.origin,
            own_key=app.dify.own_key,
            progress=app.progress,
            output_variable=app.output_variable,
            asked_before=thread.asked_before,
        )
        return await self._dify.generate(app.dify, generate_path(profile.mode), body), decoder


class _PendingTurn(Struct, frozen=True):
    """What a turn asks, of whom, and as whom."""

    app: App
    profile: AppProfile
    request: TurnRequest
    user: str
    thread: ConversationClaim
    recall: Recall | None


async def _settle(running: ActiveTurn, stopping: asyncio.Task[None] | None) -> None:
    """A turn that is not to be gone on from was begun in its conversation all the same, and may run on for a while."""
    thread, ids = running.thread, running.turn.ids
    if stopping is not None:
        await thread.hold(ids.conversation_id)
        await asyncio.wait([stopping])
    await thread.end(running.turn.ids.conversation_id)
