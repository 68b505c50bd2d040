"""Starts the runs of a turn: the first, the one in a new conversation, and those that correct its output."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from msgspec import Struct, structs

from openai_dify_proxy.errors import ConversationNotFound
from openai_dify_proxy.files.uploads import KnownCopies
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.dify.file_plan import NO_FILES, FilePlan
from openai_dify_proxy.translate.dify.forms import FormStyle
from openai_dify_proxy.translate.dify.pauses import NOT_PAUSED, PausedAt
from openai_dify_proxy.translate.dify.request import Continuation, generate_path, make_generate_request
from openai_dify_proxy.translate.dify.transcript import Transcript
from openai_dify_proxy.translate.role_lines import escape_role_lines
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.turns.admission.slots import Slot
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.claims import ConversationClaim
from openai_dify_proxy.turns.client import Client, ClientDisconnected
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.dify_stream import DifyStream, Run
from openai_dify_proxy.turns.emulation import Emulation
from openai_dify_proxy.turns.files import TurnFiles
from openai_dify_proxy.turns.large_requests import run_sized, text_size
from openai_dify_proxy.turns.stopping import Stopper
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.wire.dify import encode_generate_request

log = structlog.get_logger(__name__)

MAX_REPEATED_ANSWER = 64 * 1024
"""Characters of an invalid answer that a model without memory is shown again."""

Recall = Callable[[], Awaitable[Sequence[HistoryMessage]]]
"""Returns the messages of a stored response or conversation that a request continues."""


class Question(Struct, frozen=True):
    """A turn's request, its app, and Dify's user."""

    app: App
    profile: AppProfile
    request: TurnRequest
    user: str
    claim: ConversationClaim
    recall: Recall | None
    slot: Slot
    emulation: Emulation | None
    client: Client
    caller: str
    """The id of the caller, whose stored files the request may use."""
    copies: KnownCopies


class Runs:
    """Sends the requests of turns to Dify. The runs of one turn share its slot, one after the other."""

    def __init__(
        self,
        dify: DifyClient,
        stopper: Stopper,
        transcript: Transcript,
        conversations: Conversations,
        files: TurnFiles,
    ) -> None:
        self._dify = dify
        self._files = files
        self._stopper = stopper
        self._transcript = transcript
        self._conversations = conversations

    async def wait_for_dify(self, question: Question, conversation_id: str) -> None:
        """Check the conversation if Dify hides lost ones, and wait for the minimum interval after its last turn."""
        claim = question.claim
        if question.profile.hides_lost_conversations and (claim.unconfirmed or claim.long_ago):
            await question.client.record.wait(self._confirm(question, conversation_id))
        spacing = self._conversations.timing.turn_spacing
        pause = min(spacing, max(0.0, claim.not_before - self._conversations.now()))
        await question.client.record.wait(asyncio.sleep(pause))

    async def _confirm(self, question: Question, conversation_id: str) -> None:
        """Check that the conversation exists: this version of Dify would hang on a lost one, or start another."""
        try:
            await self._dify.confirm_conversation(question.app.dify, conversation_id, question.user)
        except ConversationNotFound:
            if not question.claim.can_restart:
                raise
            question.claim.restart()

    async def restart(self, question: Question, lost: DifyStream) -> Run:
        """Stop the lost turn, and send the request again, in a new conversation with a transcript.

        Their slot allows one at a time. Raises ProxyError.
        """
        question.claim.restart()
        await self._stop(question, lost)
        return await self.start(question)

    async def upload_again(self, question: Question, rejected: DifyStream) -> Run:
        """Send the request again, with new uploads in place of copies that Dify has lost. Raises ProxyError."""
        question.copies.lost = True
        log.info("uploads_repeated", app=question.app.name)
        await self._stop(question, rejected)
        return await self.start(question)

    async def repair(self, question: Question, before: DifyStream, text: str) -> Run:
        """Ask the model to correct its output, in the same conversation if there is one. Raises ProxyError."""
        await self._stop(question, before)
        name = before.ids.conversation_id
        if name is not None:
            spacing = self._conversations.timing.turn_spacing
            await asyncio.sleep(max(0.0, spacing - before.seconds_since_first_event))
        if name is None or _may_forget(question):
            assert question.emulation is not None
            answer = escape_role_lines(question.emulation.reader.rejected[:MAX_REPEATED_ANSWER])
            text = f"{question.request.question}\n\nYour answer was:\n{answer}\n\n{text}"
            continuation = structs.replace(question.claim.continuation, conversation_id=name)
            corrected = structs.replace(question.request, question=text)
        else:
            continuation = Continuation(name, history=False, system=False, instructions="demand")
            corrected = _without_new_files(question.request, text)
        return await self.start(structs.replace(question, request=corrected), continuation)

    async def resume(self, question: Question, cut: DifyStream) -> Exchange:
        """Read on in the events of a run whose stream broke off. Raises ProxyError.

        Without a snapshot, a run that has paused meanwhile would send nothing but pings.
        """
        cut.close()
        run_id = cut.ids.workflow_run_id
        assert run_id is not None
        exchange = await self._dify.events(question.app.dify, run_id, question.user, snapshot=True)
        question.slot.attach(exchange)
        return exchange

    async def start(self, question: Question, continuation: Continuation | None = None) -> Run:
        """Send the request to Dify, as its claim requires.

        Raises ProxyError if nothing was sent, and ClientDisconnected if the client has disconnected before.
        """
        app, profile = question.app, question.profile
        request, history, emulation = question.request, None, question.emulation
        continuation = continuation or question.claim.continuation
        if continuation.history and question.recall is not None:
            history = [*await question.recall(), *request.history]
        earlier = request.history if history is None else history
        files = NO_FILES
        if request.contents is not None or question.recall is not None:
            files = await self._place_files(question, continuation, earlier)

        def build() -> bytearray:
            return encode_generate_request(
                make_generate_request(
                    request,
                    profile,
                    app.rules,
                    question.user,
                    history=history,
                    continuation=continuation,
                    transcript=self._transcript,
                    instructions=None if emulation is None else emulation.instructions,
                    files=files,
                )
            )

        body = await run_sized(build, text_size(request, earlier)) if earlier else build()
        decoder = make_decoder(question)
        if question.client.disconnected:
            raise ClientDisconnected
        trace = question.client.record.trace
        headers = b"" if trace is None else trace.begin_turn(app.dify.url)
        exchange = await self._dify.generate(app.dify, generate_path(profile.mode), body, headers)
        question.slot.attach(exchange)
        return exchange, decoder

    async def _stop(self, question: Question, before: DifyStream) -> None:
        """End a run, so that its slot is free for the next one."""
        stopping = self._stopper.abandon(before, question.profile.mode)
        if stopping is not None:
            await asyncio.wait([stopping])

    async def _place_files(
        self, question: Question, continuation: Continuation, history: Sequence[HistoryMessage]
    ) -> FilePlan:
        """Bring the files of a turn to Dify. Their contents are freed unless another request may need them: that of a
        restart needs those of the history, and that after a lost upload all.

        Raises ProxyError.
        """
        contents = question.request.contents
        if contents is None and (question.recall is None or not any(message.files for message in history)):
            return NO_FILES
        placing = self._files.place(
            question.app,
            question.profile,
            question.request,
            history,
            transcript=continuation.history,
            user=question.user,
            caller=question.caller,
            secret=await self._conversations.secret(),
            copies=question.copies,
        )
        files = await question.client.record.wait(placing)
        question.client.record.files = len(files.included)
        if contents is not None and not question.claim.can_restart and not question.copies.used:
            contents.drop()
        return files


def make_decoder(question: Question, paused: PausedAt = NOT_PAUSED) -> DifyEventDecoder:
    """Return the decoder of a run's stream; ``paused`` is for the rest of a run that has paused."""
    app = question.app
    return DifyEventDecoder(
        question.profile.mode,
        origin=app.dify.origin,
        own_key=app.dify.own_key,
        progress=app.progress,
        output_variable=app.output_variable,
        asked_before=question.claim.asked_before if paused is NOT_PAUSED else None,
        emulating=question.emulation is not None,
        forms=_form_style(question),
        paused=paused,
    )


def _form_style(question: Question) -> FormStyle:
    """Return how forms reach the client: as calls if it has tools, or asks for them."""
    output = question.request.output
    if not question.profile.resumable:
        return "closed"
    mode = question.request.form_mode or question.app.human_input
    if output is not None and output.legacy:
        mode = "text"  # a legacy call has no id, which names the form
    if mode == "auto":
        mode = "tool" if output is not None and output.tools and output.choice.mode != "none" else "text"
    return "call" if mode == "tool" else "text"


def _may_forget(question: Question) -> bool:
    """Return whether the model of a chatflow has no memory, or may have none: an app's first turn does not show it."""
    return question.profile.mode == "advanced-chat" and question.claim.continuation.history


def _without_new_files(request: TurnRequest, text: str) -> TurnRequest:
    """Return the request with another question, whose files Dify has: they count as those of earlier messages."""
    return structs.replace(request, question=text, history=(*request.history, *request.asked), asked=(), files=())
