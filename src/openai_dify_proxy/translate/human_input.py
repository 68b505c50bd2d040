"""The form of a paused run as a client sees it: a call of the function ``dify_human_input``, or the ``dify`` object.

The id of the call holds the form's token, so that the result of the call names the form that it answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import json

from openai_dify_proxy.events import (
    Event,
    FormAction,
    FormInput,
    HumanInput,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from openai_dify_proxy.wire.openai.chat import DifyFormAction, DifyHumanInput

CALL_NAME = "dify_human_input"
MAX_ACTION = 1000
"""Characters of a text that may name an action; titles in Dify have at most 100."""

_CALL_PREFIX = "call_hi_"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""Dify's tokens have 22 letters and digits. Any text that is safe in a path and in a call's id is one."""


def is_token(text: str) -> bool:
    """Return whether ``text`` may be the token of a form."""
    return _TOKEN.fullmatch(text) is not None


def token_of_call(call_id: str | None) -> str | None:
    """Return the token in the id of a ``dify_human_input`` call; None for the ids of other calls."""
    if call_id is None or not call_id.startswith(_CALL_PREFIX):
        return None
    token = call_id.removeprefix(_CALL_PREFIX)
    return token if is_token(token) else None


def call_of_form(form: HumanInput) -> list[Event]:
    """Return the call that asks the client to answer ``form``, which has a token."""
    arguments = json.encode(form_object(form)).decode()
    started = ToolCallStarted(0, f"{_CALL_PREFIX}{form.token}", CALL_NAME)
    return [started, ToolCallDelta(0, arguments), ToolCallFinished(0)]


def form_object(form: HumanInput) -> DifyHumanInput:
    """Return the form as an object for clients."""
    return DifyHumanInput(
        form.token,
        form.title,
        form.content,
        [_input_object(each) for each in form.inputs],
        [DifyFormAction(action.id, action.title) for action in form.actions],
        form.expires_at,
        list(form.channels) or None,
    )


def find_action(text: str, actions: Sequence[FormAction]) -> FormAction | None:
    """Return the action whose id, else whose title, is ``text``; upper and lower case and outer spaces do not count."""
    if len(text) > MAX_ACTION:
        return None
    wanted = text.strip().casefold()
    named = {action.title.strip().casefold(): action for action in reversed(actions)}
    return next((action for action in actions if action.id.casefold() == wanted), None) or named.get(wanted)


def _input_object(field: FormInput) -> dict[str, object]:
    return {"name": field.name, "type": field.type, "default": field.default, **field.more}
