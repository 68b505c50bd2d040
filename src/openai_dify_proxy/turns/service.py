"""Runs turns: prepares the request to Dify, sends it, and cleans up in every case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Literal

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.files.artifacts.service import Address, Artifacts
from openai_dify_proxy.files.uploads import KnownCopies
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.settings.state_urls import is_shared
from openai_dify_proxy.telemetry import RequestRecords
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.dify.request import (
    Continuation,
    make_generate_request,
    named_conversation,
    stop_path,
)
from openai_dify_proxy.translate.dify.transcript import Transcript
from openai_dify_proxy.translate.openai.stop_sequences import StopSequences
from openai_dify_proxy.translate.turn_request import OutputRequest, TurnRequest
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.admission.admittance import Admittance
from openai_dify_proxy.turns.admission.service import Admission
from openai_dify_proxy.turns.admission.slots import Slot
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.apps import App, Apps
from openai_dify_proxy.turns.booking import Booking
from openai_dify_proxy.turns.callers import Caller, user_in_dify
from openai_dify_proxy.turns.client import Client, ConnectedClient
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.dify_stream import DifyStream, TurnLimits
from openai_dify_proxy.turns.emulation import Emulation, Emulator, output_size
from openai_dify_proxy.turns.files import TurnFiles
from openai_dify_proxy.turns.human_input import HumanInputs
from openai_dify_proxy.turns.large_requests import run_sized
from openai_dify_proxy.turns.locks import ConversationTaken, Lock
from openai_dify_proxy.turns.pauses import Pauses
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.resumption import Resumption
from openai_dify_proxy.turns.reuploads import Reuploads
from openai_dify_proxy.turns.runs import Question, Recall, Runs
from openai_dify_proxy.turns.stopping import HURRY_SECONDS, Stopper
from openai_dify_proxy.turns.turn_block import TurnBlock, TurnPlan
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.wire.dify import MessageFeedback, MessageRow

SUGGESTION_SECONDS = 10.0
"""How long an answer waits for suggested questions, which Dify's model writes after it."""

EMULATION_COST = 8
"""To read and write a schema takes as long as to escape a text of so many times its size."""


class Turns:
    """Runs turns, and stops abandoned ones in Dify.

    A turn first gets a slot, then the lock of its conversation, then its claim. So a turn that waits for a slot holds
    no lock that others need, and one that must wait for a lock leaves its slot to others until the lock is free.
    """

    def __init__(
        self,
        settings: Settings,
        apps: Apps,
        profiles: Profiles,
        dify: DifyClient,
        conversations: Conversations,
        *,
        files: TurnFiles,
        artifacts: Artifacts,
        ledger: Ledger,
        records: RequestRecords | None = None,
    ) -> None:
        """``records`` receives the records of turns without a client."""
        shared = is_shared(settings.state_url.get_secret_value())
        store = conversations.store if shared else None
        self.admission = Admission(settings, apps.urls, store, dify, patience=conversations.timing.lock_timeout)
        self._queue_timeout = settings.queue_timeout
        self._apps = apps
        self._profiles = profiles
        self._dify = dify
        self._conversations = conversations
        self._plain_users = settings.end_user_id == "plain"
        self._limits = TurnLimits(settings.silence_timeout, settings.turn_timeout)
        self._stopper = Stopper(dify)
        self._emulator = Emulator(settings)
        self._files = files
        self._artifacts = artifacts
        self.ledger = ledger
        self.records = records or RequestRecords()
        self._pauses = Pauses(conversations)
        self._human = HumanInputs(dify, conversations, self._pauses, asks_again=settings.human_input_other == "ask")
        self._runs = Runs(dify, self._stopper, Transcript(settings.transcript_template), conversations, files)
        self._active = 0
        self._all_ended: asyncio.Event | None = None
        """Awaited by ``close`` until the last turn has ended."""
        self._closing: set[asyncio.Task[None]] = set()
        self._grace_ends = 0.0

    def wait(self, *, streamed: bool, in_background: bool = False) -> TurnWait:
        """Return the wait of one turn, for ``admit`` or ``run``: a stream may wait longer for its slot."""
        return TurnWait(self._limits.silence if streamed else self._queue_timeout, in_background=in_background)

    def ignored(self, app: App, output: OutputRequest | None, request: TurnRequest | None = None) -> Sequence[str]:
        """Return the parameters about tools, formats and files that have no effect, as far as the app is known yet."""
        if output is None and (request is None or request.contents is None):
            return ()
        profile = self._profiles.cached(app.dify)
        files = () if request is None else self._files.ignored(profile, request)
        return (*self._emulator.ignored(app, profile, output), *files)

    async def check(self, caller: Caller, app: App, request: TurnRequest, *, wait: TurnWait) -> None:
        """Raise the error of a request that ``run`` would reject before it waits for a slot. Raises ProxyError."""
        profile = self._profiles.cached(app.dify) or await self._profiles.get(app.dify, app.mode)
        await self._emulate(app, profile, request, streamed=False)
        self._check(app, profile, await self._files.resolve(caller, request))
        self.admission.check_place(app.dify.url, caller, request.end_user, wait)

    @asynccontextmanager
    async def admit(
        self,
        caller: Caller,
        app: App,
        end_user: str | None,
        *,
        client: Client,
        wait: TurnWait,
        request: TurnRequest | None = None,
    ) -> AsyncIterator[Admittance]:
        """Wait for a slot for ``run``, before a lock is taken. It is free again when the turn has ended, if one ran.

        A ``request`` that is known already does not wait if the app cannot answer it. Raises ProxyError, and
        ClientDisconnected if the client disconnects before the slot is free.
        """
        # A key that Dify rejects takes no slot.
        profile = self._profiles.cached(app.dify) or await self._profiles.get(app.dify, app.mode)
        admittance = self.admission.admittance(app.dify.url, caller, end_user, client, wait)
        try:
            if not admittance.try_enter():
                if request is not None:
                    self._check(app, profile, await self._files.resolve(caller, request))
                await admittance.enter()
            yield admittance
        finally:
            admittance.leave()

    def run(
        self,
        caller: Caller,
        app: App,
        request: TurnRequest,
        *,
        client: Client | None = None,
        recall: Recall | None = None,
        lock: Lock | None = None,
        admittance: Admittance | None = None,
        wait: TurnWait | None = None,
        streamed: bool = False,
        address: Address | None = None,
    ) -> TurnBlock:
        """Return the block of a turn, at whose beginning the request is sent to Dify.

        ``client`` aborts the turn by disconnecting. ``recall`` is called only if a transcript is needed. The turn takes
        over ``lock`` until its end. Without the ``admittance`` of an ``admit`` block, it waits for a slot as ``wait``
        says. ``streamed`` says whether the client receives events before the end. ``address`` returns the server's
        address for links to files; without one, they stay as Dify sends them, unless ``PUBLIC_URL`` is set.
        """
        client = client or self._inner_client()
        record = client.record
        record.caller, record.label = caller.id, caller.name
        record.app, record.end_user = app.name, request.end_user
        claim = self._conversations.claim(app, request, lock)
        own = admittance is None
        if admittance is None:
            wait = wait or self.wait(streamed=False)
            admittance = self.admission.admittance(app.dify.url, caller, request.end_user, client, wait)
        plan = TurnPlan(caller, app, request, claim, admittance, client, recall, streamed, address)
        return TurnBlock(self, plan, admittance, record, own)

    async def open(self, plan: TurnPlan) -> ActiveTurn:
        """Send the request to Dify. Raises ProxyError, and ClientDisconnected if the client has disconnected before."""
        caller, app, claim, admittance, client = plan.caller, plan.app, plan.claim, plan.admittance, plan.client
        record, request = client.record, plan.request
        profile = self._profiles.cached(app.dify)
        if profile is None:
            profile = await record.wait(self._profiles.get(app.dify, app.mode))
        if request.contents is not None:
            request = await record.wait(self._files.resolve(caller, request))
        emulation = None
        if request.output is not None:
            emulation = await self._emulate(app, profile, request, streamed=plan.streamed)
            if emulation is not None and emulation.instructions is not None:
                claim.instruct(emulation.instructions.identity, self._emulator.remind_after)
        if not admittance.try_enter():
            self._check(app, profile, request)
        slot = secret = pause = None
        while slot is None:
            slot = admittance.slot or await admittance.enter()
            secret = await self._conversations.secret()
            try:
                pause = await self._human.find(claim, caller, app, profile, request, secret=secret)
            except ConversationTaken as taken:
                claim.awaits_head = await admittance.wait_until_free(taken)
                slot = None
        user = self._user(app, caller, request.end_user, secret)
        copies = KnownCopies()
        question = Question(app, profile, request, user, claim, plan.recall, slot, emulation, client, caller.id, copies)
        if pause is None:
            if (continued := claim.conversation_id) is not None:
                await self._runs.wait_for_dify(question, continued)
            exchange, decoder = await self._runs.start(question)
        else:
            exchange, decoder = await self._human.start(question, pause)
        record.sent = exchange.sent_at
        record.elsewhere += admittance.waited + exchange.connecting
        stream = self._read(question, exchange, decoder, resumed=pause is not None)
        stream.links = self._artifacts.links(app.dify.base_url, caller.id, user, secret, plan.address)
        slot.hold()  # until ``end``
        self._active += 1
        client.on_disconnect(stream.disconnect)
        return ActiveTurn(
            stream,
            claim,
            slot,
            app.name,
            profile.mode,
            user,
            record,
            Booking(self.ledger, caller, app.name),
            self._conversations.now,
            partial(self._pauses.put_operations, caller, app, request.end_user),
            self._stopper,
        )

    async def messages(
        self,
        caller: Caller,
        model: str | None,
        conversation_id: str,
        user: str,
        *,
        in_turn_of: App | None = None,
    ) -> list[MessageRow]:
        """Return the messages of a Dify conversation, oldest first. Raises ProxyError.

        A turn of the app ``in_turn_of`` has a slot of its Dify already; otherwise wait for one.
        """
        dify = self._apps.choose(caller, model).dify
        if in_turn_of is not None and in_turn_of.dify.url == dify.url:
            return await self._dify.messages(dify, conversation_id, user)
        async with self._slot(caller, dify):
            return await self._dify.messages(dify, conversation_id, user)

    async def delete_conversation(self, caller: Caller, model: str | None, conversation_id: str, user: str) -> None:
        """Delete a Dify conversation, with a slot of its Dify. Raises ProxyError."""
        dify = self._apps.choose(caller, model).dify
        async with self._slot(caller, dify):
            await self._dify.delete_conversation(dify, conversation_id, user)

    async def rate(
        self,
        caller: Caller,
        model: str | None,
        end_user: str | None,
        message_id: str,
        *,
        rating: Literal["like", "dislike"] | None,
        content: str | None,
    ) -> None:
        """Store an end user's rating of an own message in Dify, with a slot of its Dify. Raises ProxyError."""
        app = self._apps.choose(caller, model)
        feedback = MessageFeedback(await self.user(app, caller, end_user), rating, content)
        async with self._slot(caller, app.dify):
            await self._dify.rate(app.dify, message_id, feedback)

    def suggests_questions(self, app: App) -> bool | None:
        """Return whether the app suggests questions after its answers; None if it is not known yet."""
        profile = self._profiles.cached(app.dify)
        return None if profile is None else profile.suggests_questions

    async def suggested_questions(self, turn: ActiveTurn) -> list[str] | None:
        """Return questions that may follow the answer of an ended turn; None if Dify has none.

        The call uses the slot of the turn, whose run has ended.
        """
        profile = self._profiles.cached(turn.stream.app)
        known = profile is None or profile.suggests_questions
        if not (known and turn.stream.finished_upstream) or turn.ids.message_id is None:
            return None
        try:
            async with asyncio.timeout(SUGGESTION_SECONDS):
                return await self._dify.suggestions(turn.stream.app, turn.ids.message_id, turn.user)
        except (ProxyError, TimeoutError):
            return None  # the answer is complete without them

    async def stop(self, caller: Caller, model: str | None, task_id: str, user: str) -> None:
        """Stop a turn of another process. Raises ProxyError."""
        app = self._apps.choose(caller, model)
        profile = await self._profiles.get(app.dify, app.mode)
        await self._dify.stop(app.dify, stop_path(profile.mode, task_id), user)

    async def user(self, app: App, caller: Caller, end_user: str | None) -> str:
        """Return Dify's ``user``, derived from the state's secret, or from the app's key while that is unreachable."""
        return self._user(app, caller, end_user, await self._conversations.secret())

    def begin_close(self, grace: float) -> None:
        """Record that the server stops, and that requests may take ``grace`` seconds to end before ``close``.

        Stops of abandoned turns may take what remains of these seconds.
        """
        self._grace_ends = asyncio.get_running_loop().time() + grace

    async def close(self, timeout: float) -> None:
        """Wait for running turns and for the stops of abandoned ones, up to ``timeout`` seconds beyond the grace."""
        now = asyncio.get_running_loop().time
        end = max(now(), self._grace_ends) + timeout
        if self._active:
            all_ended = self._all_ended = self._all_ended or asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await all_ended.wait()
        await self._stopper.close(max(HURRY_SECONDS, end - now()))
        await asyncio.gather(*self._closing)
        await self.admission.close()

    def _read(self, question: Question, exchange: Exchange, decoder: DifyEventDecoder, *, resumed: bool) -> DifyStream:
        """Return the stream of a turn whose request was sent. ``resumed`` says whether it continues a paused run."""
        request, claim, emulation = question.request, question.claim, question.emulation
        may_have_files = request.contents is not None or question.recall is not None
        return DifyStream(
            exchange,
            decoder,
            question.app.dify,
            question.user,
            self._limits,
            StopSequences(request.stop) if request.stop else None,
            claim.conversation_id,
            restart=partial(self._runs.restart, question) if claim.can_restart and not resumed else None,
            reuploads=self._reuploads(question) if may_have_files else None,
            output=None if emulation is None else emulation.reader,
            repair=None if emulation is None else partial(self._runs.repair, question),
            resumption=Resumption(partial(self._runs.resume, question)) if question.profile.resumable else None,
        )

    def _reuploads(self, question: Question) -> Reuploads:
        return Reuploads(question.copies, partial(self._runs.upload_again, question))

    def _user(self, app: App, caller: Caller, end_user: str | None, secret: bytes | None) -> str:
        return user_in_dify(secret or app.dify.key.encode(), caller, end_user, plain=self._plain_users)

    def _inner_client(self) -> ConnectedClient:
        """Return the client of a turn that another request caused, with a record of its own."""
        client = ConnectedClient()
        self.records.begin(client.record)
        return client

    def _slot(self, caller: Caller, dify: DifyApp) -> AbstractAsyncContextManager[Slot]:
        """Return a block with a slot, for a call outside a turn."""
        return self.admission.slot(dify.url, caller, ConnectedClient(), self.wait(streamed=False))

    async def _emulate(
        self, app: App, profile: AppProfile, request: TurnRequest, *, streamed: bool
    ) -> Emulation | None:
        """Return the emulation of the request's tools and format, if any. Raises InvalidRequest."""
        if request.output is None:
            return None
        emulate = partial(self._emulator.emulate, app, profile, request, streamed=streamed)
        return await run_sized(emulate, EMULATION_COST * output_size(request.output))

    def _check(self, app: App, profile: AppProfile, request: TurnRequest) -> None:
        """Raise InvalidRequest for a request that the app cannot answer, so that it does not wait for a slot."""
        if request.form_answer is not None:
            return
        if profile.converses and not request.stateless:
            named_conversation(request)
        files = self._files.check(app, profile, request)
        make_generate_request(request, profile, app.rules, "", continuation=Continuation(history=False), files=files)

    def end(self, turn: ActiveTurn) -> None:
        """Stop the turn in Dify if it still runs, and end its claim and its slot. The client waits for nothing."""
        turn.fill_record()
        self._active -= 1
        if not self._active and self._all_ended is not None:
            self._all_ended.set()
            self._all_ended = None
        stopping = self._stopper.abandon(turn.stream, turn.mode)
        if stopping is None:
            turn.slot.leave()
            turn.booking.end(turn.stream)
        else:
            stopping.add_done_callback(turn.slot.leave)
            stopping.add_done_callback(lambda _: turn.booking.end(turn.stream))
        if not turn.claim.settled:
            abandoning = turn.claim.abandon(lambda: turn.ids.conversation_id, stopping)
            task = asyncio.get_running_loop().create_task(abandoning)
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
