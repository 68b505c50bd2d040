"""The forms of paused runs: as events, as text, and the answer to one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.events import FormAction, FormInput, HumanInput
from openai_dify_proxy.translate.human_input import find_action, is_token
from openai_dify_proxy.translate.turn_request import FormAnswer
from openai_dify_proxy.wire import dify

FormStyle = Literal["call", "text", "closed"]
"""How a form reaches the client: as a ``call`` if it has a token, else as ``text``.

``closed`` is text without the token, for versions of Dify whose API cannot answer forms.
"""

AWAITED = "This conversation waits for an answer to a form:"
"""Precedes a form that is shown again."""

MAX_ACTIONS = 50
MAX_NAMED = 20
"""Actions and inputs that an error message names."""

_FIELD = re.compile(r"\{\{#\$output\.(\w+)#\}\}")
_NAMED = frozenset({"output_variable_name", "name", "type", "default"})
_TEXTS = frozenset({"paragraph", "text-input"})


def awaited_form(reasons: Sequence[dify.PauseReason], characters: int, style: FormStyle) -> HumanInput | None:
    """Return the form to answer: the first one with a token, else the first one. ``characters`` is for the result.

    A run that waits for several forms pauses again after each answer.
    """
    if not reasons:
        return None
    reason = next((reason for reason in reasons if _usable_token(reason, style)), reasons[0])
    return HumanInput(
        _usable_token(reason, style),
        reason.node_title or "",
        reason.form_content or "",
        read_inputs(reason.inputs, reason.resolved_default_values),
        read_actions(reason.actions),
        tuple(reason.approval_channels or ()),
        reason.expiration_time,
        characters,
    )


def form_text(reason: dify.PauseReason, style: FormStyle) -> str:
    """Return a form as text for a person: its content, its actions, and who can answer it if the client cannot."""
    parts = [_FIELD.sub(r"[\1]", reason.form_content.strip())] if reason.form_content else []
    titles = [action.title for action in read_actions(reason.actions)]
    if titles:
        parts.append(" · ".join(f"[{title}]" for title in titles))
    if parts and _usable_token(reason, style) is None:
        parts.append(closed_text(reason.approval_channels or ()))
    return "\n\n".join(parts)


def closed_text(channels: Sequence[str]) -> str:
    """Return the sentence about a form that this API cannot answer."""
    places = f"its approval channels in Dify: {', '.join(channels)}" if channels else "Dify itself"
    return f"This form cannot be answered here, only through {places}."


def read_inputs(
    inputs: Sequence[Mapping[str, Any]] | None, resolved: Mapping[str, Any] | None
) -> tuple[FormInput, ...]:
    """Return the inputs of a form, with the default values that the run has ``resolved``. Unnamed ones are omitted."""
    return tuple(
        FormInput(name, str(field.get("type") or "paragraph"), _default(field, resolved or {}), _more(field))
        for field in inputs or ()
        if (name := field.get("output_variable_name")) and isinstance(name, str)
    )


def read_actions(actions: Sequence[dify.ActionData] | None) -> tuple[FormAction, ...]:
    """Return the actions of a form, at most ``MAX_ACTIONS``. Those without an id are omitted."""
    found = [FormAction(action.id, action.title or action.id) for action in actions or () if action.id]
    return tuple(found[:MAX_ACTIONS])


def fill_form(form: dify.PendingForm, answer: FormAnswer, user: str) -> dify.FormSubmission:
    """Return what submits ``answer``: absent inputs have their defaults, and blank texts if it names only an action.

    Raises InvalidRequest for an unknown action and for missing inputs.
    """
    actions = read_actions(form.user_actions)
    action = find_action(answer.action, actions)
    if action is None:
        raise unknown_action(actions, answer.param)
    values, missing = dict(answer.inputs or {}), []
    for field in read_inputs(form.inputs, form.resolved_default_values):
        if field.name in values:
            continue
        if field.default is not None:
            values[field.name] = field.default
        elif answer.inputs is None and field.type in _TEXTS:
            values[field.name] = ""
        else:
            missing.append(field.name)
    if missing:
        raise InvalidRequest(
            f"Missing required inputs of the form: {_listed(missing)}. Send the action and 'inputs' with a value for "
            "each.",
            param=answer.param,
            code="invalid_form_data",
        )
    return dify.FormSubmission(values, action.id, user)


def unknown_action(actions: Sequence[FormAction], param: str) -> InvalidRequest:
    """Return the error for an answer that names no action of the form."""
    names = _listed([f"{action.id} ({action.title})" for action in actions])
    return InvalidRequest(
        f"The answer to the form names none of its actions. Send the id or the title of one: {names}.",
        param=answer_param(param),
        code="invalid_form_data",
    )


def answer_param(param: str) -> str:
    """Return the path of the action in an answer: an object of its own has a field for it."""
    return f"{param}.action" if param == "human_input" else param


def _usable_token(reason: dify.PauseReason, style: FormStyle) -> str | None:
    token = reason.form_token
    return token if style != "closed" and token is not None and is_token(token) else None


def _default(field: Mapping[str, Any], resolved: Mapping[str, Any]) -> Any:
    """Return the default value of an input: a resolved variable, else a constant; None if it has none."""
    default = field.get("default")
    if (value := resolved.get(str(field["output_variable_name"]))) is not None:
        return value
    return default.get("value") if isinstance(default, dict) and default.get("type") != "variable" else None


def _more(field: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in field.items() if key not in _NAMED}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
