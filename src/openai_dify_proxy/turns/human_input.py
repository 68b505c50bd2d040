"""Turns in conversations whose last run has paused: they answer its form, or show it again.

An answer is submitted while the run's events are being read, so that none of them is missed. Everything that Dify
would reject is found before: on 1.16.1, a reader that leaves a run's events may break those of the next reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from msgspec import Struct, structs

from openai_dify_proxy.eager import in_task
from openai_dify_proxy.errors import (
    FormClosed,
    InvalidRequest,
    NotFound,
    ProxyError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from openai_dify_proxy.events import FormAction
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.forms import closed_text, fill_form
from openai_dify_proxy.translate.dify.pauses import PausedAt
from openai_dify_proxy.translate.human_input import find_action
from openai_dify_proxy.translate.turn_request import FormAnswer, HistoryMessage, TurnRequest
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.claims import ConversationClaim
from openai_dify_proxy.turns.client import ClientDisconnected
from openai_dify_proxy.turns.conversation_entries import PausedRun
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.dify_stream import Run
from openai_dify_proxy.turns.pauses import Pauses, ids_of
from openai_dify_proxy.turns.runs import Question, make_decoder
from openai_dify_proxy.turns.scopes import Scope
from openai_dify_proxy.upstream.dify import DifyClient, missing_answer, rejection
from openai_dify_proxy.upstream.exchange import Exchange

ATTACH_SECONDS = 30.0
"""How long Dify may take to begin a run's events, whose first frame is a ping."""

ERROR_BYTES = 64 * 1024

log = structlog.get_logger(__name__)


class Pause(Struct, frozen=True):
    """The paused run of a turn; ``answer`` is None if the turn only shows its form again."""

    run: PausedRun
    scope: Scope
    answer: FormAnswer | None


class HumanInputs:
    """Finds the paused run that a turn is about, and resumes it."""

    def __init__(self, dify: DifyClient, conversations: Conversations, pauses: Pauses, *, asks_again: bool) -> None:
        """``asks_again`` says whether a message that answers no form shows it again, instead of starting a run."""
        self._dify = dify
        self._conversations = conversations
        self._pauses = pauses
        self._asks_again = asks_again

    async def find(
        self,
        claim: ConversationClaim,
        caller: Caller,
        app: App,
        profile: AppProfile,
        request: TurnRequest,
        *,
        secret: bytes | None,
    ) -> Pause | None:
        """Let ``claim`` take the conversation of the turn, and return its pause, if it waits in one.

        Raises the errors of ``Conversations.find``, NotFound and FormClosed for an answer to no open form, and
        InvalidRequest for one to a form that only people in Dify can answer.
        """
        answer = request.form_answer
        if answer is not None and answer.token is not None:
            return await self._answered(
                claim, caller, app, profile, request, secret=secret, answer=answer, token=answer.token
            )
        await self._conversations.find(claim, caller, app, profile, request, secret=secret)
        if answer is None and not claim.paused:
            return None
        scope = await self._pauses.scope(caller, app, request.end_user) if claim.paused else None
        run = None if scope is None else await self._pauses.load(scope, claim.paused)
        if run is None or scope is None or not profile.resumable:
            if answer is not None:
                raise _unknown_form(answer)
            return None
        answer = answer or chat_answer(request.asked, run)
        if answer is None and not await self._is_shown_again(app, run):
            return None
        if answer is not None:
            _check_open(run, answer)
        elif claim.conversation_id is None:  # another turn has taken the conversation, but this history waits, too
            await claim.take_named(run.conversation_id)
        return Pause(run, scope, answer)

    async def start(self, question: Question, pause: Pause) -> Run:
        """Submit the answer and attach to the run's events, or request those that show the form.

        Raises ProxyError, and ClientDisconnected if the client has disconnected before.
        """
        run, app = pause.run, question.app.dify
        if question.client.disconnected:
            raise ClientDisconnected
        question.claim.ask_nothing()
        if pause.answer is None:
            question.claim.pauses = run.name
            events = await self._dify.events(app, run.run_id, question.user, snapshot=True)
            question.slot.attach(events)
        else:
            events = await self._submit(question, pause, pause.answer)
        shown = pause.answer is None
        return events, make_decoder(question, PausedAt(ids_of(run), run.characters, shown, run.usage))

    async def _answered(
        self,
        claim: ConversationClaim,
        caller: Caller,
        app: App,
        profile: AppProfile,
        request: TurnRequest,
        *,
        secret: bytes | None,
        answer: FormAnswer,
        token: str,
    ) -> Pause:
        """Find the run whose form has ``token``, and let ``claim`` take its conversation."""
        scope = await self._pauses.scope(caller, app, request.end_user)
        run = None if scope is None else await self._pauses.load(scope, token)
        if run is None or scope is None:
            raise _unknown_form(answer)
        _check_open(run, answer)
        named = structs.replace(request, conversation_id=run.conversation_id or None)
        await self._conversations.find(claim, caller, app, profile, named, secret=secret)
        return Pause(run, scope, answer)

    async def _is_shown_again(self, app: App, run: PausedRun) -> bool:
        """Return whether the run still waits for a person, and its form is to be shown again."""
        if not self._asks_again or run.answered:
            return False
        try:
            return await self._dify.run_status(app.dify, run.run_id) == "paused"
        except NotFound:
            return False

    async def _submit(self, question: Question, pause: Pause, answer: FormAnswer) -> Exchange:
        """Submit the answer while the run's events are being read, and return these."""
        run, app, token = pause.run, question.app.dify, pause.run.token
        try:
            submission = fill_form(await self._dify.form(app, token), answer, question.user)
        except FormClosed as error:
            await self._pauses.mark(pause.scope, question.caller, run, answered=True)
            raise _with_param(error, answer) from None
        except NotFound as error:
            raise _with_param(error, answer) from None
        events = await self._dify.events(app, run.run_id, question.user)
        question.slot.attach(events)
        submitted = False
        try:
            await self._attach(question, events)
            before = await self._pauses.mark(pause.scope, question.caller, run, answered=True)
            if before is None or before.answered:
                raise _closed(answer)
            try:
                await self._dify.submit_form(app, token, submission)
            except ProxyError as error:
                if _is_rejection(error):
                    await self._pauses.mark(pause.scope, question.caller, run, answered=False)
                raise _with_param(error, answer) from None
            submitted = True
        finally:
            if not submitted:
                events.close()
        log.info("form_submitted", app=question.app.name, workflow_run_id=run.run_id)
        return events

    async def _attach(self, question: Question, events: Exchange) -> None:
        """Wait until Dify sends the events. Raises ProxyError if it does not, and ClientDisconnected."""
        app = question.app.dify
        await in_task()
        try:
            async with asyncio.timeout(ATTACH_SECONDS):
                while events.status is None and not events.ended:
                    await events.wait()
                if events.status is None:
                    raise missing_answer(app, events)
                if events.status != 200:
                    raise rejection(app, events, await events.read_all(ERROR_BYTES))
        except TimeoutError:
            raise UpstreamTimeout(f"Dify did not send the events of the run within {ATTACH_SECONDS:g} s.") from None
        if question.client.disconnected:
            raise ClientDisconnected


def chat_answer(asked: Sequence[HistoryMessage], run: PausedRun) -> FormAnswer | None:
    """Return the answer of a message that is exactly an action's id or title, if the new messages are that."""
    if len(asked) != 1 or asked[0].files:
        return None
    actions = [FormAction(*action) for action in run.actions]
    action = find_action(asked[0].text, actions)
    return None if action is None else FormAnswer(run.token or None, action.id, None, "messages")


def _check_open(run: PausedRun, answer: FormAnswer) -> None:
    """Raise the error of an answer to a form that was answered, or that has no token."""
    if run.answered:
        raise _closed(answer)
    if not run.token:
        raise InvalidRequest(
            f"{closed_text(run.channels)} Send another message once it is answered there.",
            param=answer.param,
            code="human_input_form_without_token",
        )


def _closed(answer: FormAnswer) -> FormClosed:
    return FormClosed(
        "The form was answered already, or has expired. The next message of the conversation starts a new run.",
        param=answer.param,
    )


def _unknown_form(answer: FormAnswer) -> NotFound:
    return NotFound(
        "No form waits for this answer. Send it with the model, the user and the token of the answer that showed the "
        "form, or start a new run with a message.",
        param=answer.param,
        code="human_input_form_not_found",
    )


def _is_rejection(error: ProxyError) -> bool:
    """Return whether Dify certainly did not accept an answer, so that another one may follow."""
    if isinstance(error, FormClosed):
        return False
    return error.status < 500 or (isinstance(error, UpstreamUnreachable) and not error.started)


def _with_param(error: ProxyError, answer: FormAnswer) -> ProxyError:
    """Return ``error`` with the path of the answer in the request. If Dify may have accepted it, no retry follows."""
    if error.status < 500:
        error.param = answer.param
    else:
        error.started = error.started or not _is_rejection(error)
    return error
