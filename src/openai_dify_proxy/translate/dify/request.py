"""Builds the request body for a Dify app from a turn request.

Dify's API has no field for system messages and earlier turns. Each goes into an input for it if the app has one, else
before the question. Apps without a query (workflow, completion) get the question in an input. Inputs are converted to
the types of the form, and checked where Dify's own error would be less helpful.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

from msgspec import UNSET, Struct, json

from openai_dify_proxy.errors import SEE_LOG, InvalidRequest, UpstreamMisconfigured
from openai_dify_proxy.translate.dify.app_profile import (
    HISTORY_NAMES,
    QUESTION_NAMES,
    SYSTEM_NAMES,
    AppProfile,
    InputField,
)
from openai_dify_proxy.translate.dify.file_plan import NO_FILES, FilePlan, named_files
from openai_dify_proxy.translate.dify.instructions import Extent, Instructions, place_instructions
from openai_dify_proxy.translate.dify.transcript import PLAIN, Transcript
from openai_dify_proxy.translate.tool_texts import rendered_messages
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.wire.dify import GenerateRequest, Mode
from openai_dify_proxy.wire.reading import UNREADABLE, decode_text


class AppRules(Struct, frozen=True):
    """Settings for the requests to an app. ``system_prompt`` is auto, query, drop or ``input:<variable>``."""

    input_variable: str | None = None
    system_prompt: str = "auto"
    inputs: Mapping[str, Any] = {}


class Continuation(Struct, frozen=True):
    """How a turn continues the earlier messages.

    ``conversation_id`` is the Dify conversation, None for a new one. ``history`` and ``system`` say whether the earlier
    messages and the system message are sent; they are not if Dify has them. ``instructions`` says how much of the
    instructions about tools and schemas is sent.
    """

    conversation_id: str | None = None
    history: bool = True
    system: bool = True
    instructions: Extent = "full"


BEGINNING = Continuation()


def make_generate_request(
    turn: TurnRequest,
    profile: AppProfile,
    rules: AppRules,
    user: str,
    *,
    history: Sequence[HistoryMessage] | None = None,
    continuation: Continuation = BEGINNING,
    transcript: Transcript = PLAIN,
    instructions: Instructions | None = None,
    files: FilePlan = NO_FILES,
) -> GenerateRequest:
    """Return the body to send. ``user`` is Dify's user; ``history`` replaces the request's own history.

    ``files`` are in Dify already. Raises InvalidRequest with ``inputs.<name>`` as its param.
    """
    inputs: dict[str, Any] = {**rules.inputs, **turn.inputs}
    asked = turn.question
    earlier = turn.history if history is None else history
    if files is not NO_FILES:
        inputs |= files.inputs(inputs)
        included = files.included
        earlier = [named_files(message, included) for message in earlier] if continuation.history else ()
        asked = named_files(HistoryMessage("user", asked, files=files.ignored), included).text
    question: Iterable[str] = (asked,)
    if earlier and continuation.history:
        question = _place_history(earlier, asked, profile, inputs, transcript)
    if turn.system:
        question = _place_system(turn, question, profile, rules.system_prompt, inputs, before=continuation.system)
    if instructions is not None:
        question = place_instructions(instructions, continuation.instructions, question, profile, inputs)
    references = UNSET if files is NO_FILES else files.references() or UNSET
    if profile.converses:
        return GenerateRequest(
            _checked(inputs, profile) if profile.form else {},
            user,
            query=question,
            conversation_id=continuation.conversation_id or UNSET,
            auto_generate_name=False,
            files=references,
        )
    body = _make_single_shot("".join(question), inputs, profile, rules, user)
    body.files = references
    return body


def sent_system(turn: TurnRequest, rules: AppRules) -> str:
    """Return the system message if it reaches Dify, else an empty string."""
    return "" if rules.system_prompt == "drop" or turn.system == turn.question else turn.system


def sent_inputs(turn: TurnRequest, profile: AppProfile, rules: AppRules) -> str:
    """Return the inputs that reach Dify as canonical JSON. Dify drops inputs that the app does not have."""
    if not profile.form:
        return ""
    names = {field.name for field in profile.form}
    given = {name: value for name, value in {**rules.inputs, **turn.inputs}.items() if name in names}
    return json.encode(given, order="sorted").decode() if given else ""


def _make_single_shot(
    question: str, inputs: dict[str, Any], profile: AppProfile, rules: AppRules, user: str
) -> GenerateRequest:
    """Build the body for an app without conversations, which gets the question in an input.

    A completion app also gets a query, which its template may or may not use.
    """
    _require_field(rules.input_variable, "input_variable", profile)
    name = profile.question_input(rules.input_variable, inputs)
    if name is None and profile.mode == "workflow":
        _reject_ambiguous(profile, inputs)
    if name is not None:
        field = next((field for field in profile.form if field.name == name), None)
        if field is not None and name not in inputs and not field.fits(question):
            raise InvalidRequest(
                f"The question with its system message and history has {len(question)} characters. "
                f"The app's input '{name}' allows at most {field.max_length}.",
                param=f"inputs.{name}",
            )
        inputs.setdefault(name, question)
    query = (question,) if profile.mode == "completion" else UNSET
    return GenerateRequest(_checked(inputs, profile), user, query=query)


def _require_field(name: str | None, setting: str, profile: AppProfile) -> None:
    """Raise UpstreamMisconfigured if the app lacks an input that a setting names: its value would be lost."""
    if name is not None and all(field.name != name for field in profile.form):
        raise UpstreamMisconfigured(
            f"The app behind this model lacks an input that this server is configured to fill. {SEE_LOG}",
            log=f"{setting} names the input '{name}', which the app does not have. "
            f"Its inputs are: {', '.join(field.name for field in profile.form) or 'none'}.",
        )


def _reject_ambiguous(profile: AppProfile, inputs: Mapping[str, Any]) -> None:
    texts = [field.name for field in profile.form if field.is_text]
    if all(name in inputs for name in texts):
        return  # the request fills all text inputs itself
    raise InvalidRequest(
        f"This workflow has several text inputs ({', '.join(texts)}), none of them with a name for the question "
        f"({', '.join(QUESTION_NAMES)}). The operator can set input_variable for the app.",
        param="model",
        code="ambiguous_input",
    )


def named_conversation(turn: TurnRequest) -> str | None:
    """Return the Dify conversation that the client names, if any. Raises InvalidRequest if it is not a UUID."""
    if turn.conversation_id is None:
        return None
    try:
        return str(UUID(turn.conversation_id))
    except ValueError:
        raise InvalidRequest(
            f"{turn.conversation_param} must be a UUID. "
            "Send the value of X-Dify-Conversation-Id from an earlier response, or omit it.",
            param=turn.conversation_param,
        ) from None


def _place_system(
    turn: TurnRequest, question: Iterable[str], profile: AppProfile, rule: str, inputs: dict[str, Any], *, before: bool
) -> Iterable[str]:
    """Place the system message according to ``rule``, and return the resulting question in parts.

    An input gets it on every turn. Without such an input it goes before the question if ``before`` is true; Dify
    remembers it there.
    """
    system = turn.system
    if rule == "drop" or system == turn.question:
        return question
    if rule.startswith("input:"):
        _require_field(rule.removeprefix("input:"), "system_prompt", profile)
        inputs.setdefault(rule.removeprefix("input:"), system)
        return question
    if rule == "auto" and (field := profile.text_input(SYSTEM_NAMES)) and field.fits(system):
        inputs.setdefault(field.name, system)
        return question
    return chain((system, "\n\n"), question) if before else question


def _place_history(
    earlier: Sequence[HistoryMessage],
    question: str,
    profile: AppProfile,
    inputs: dict[str, Any],
    transcript: Transcript,
) -> Iterable[str]:
    """Place the history, and return the resulting question in parts."""
    if any(message.calls or message.role == "tool" for message in earlier):
        earlier = rendered_messages(earlier)
    history = [message for message in earlier if message.text]
    field = profile.text_input(HISTORY_NAMES)
    if history and field is not None and field.name not in inputs:
        as_json = field.name.lower() == "messages"
        text = transcript.as_json(history) if as_json else "".join(transcript.lines(history))
        if field.fits(text):
            inputs[field.name] = text
            return (question,)
    return transcript.carry(history, question)


def _checked(inputs: dict[str, Any], profile: AppProfile) -> dict[str, Any]:
    """Return the inputs of the form, converted to its types; Dify would drop the others."""
    form = {field.name: field for field in profile.form}
    checked = {}
    for name, value in inputs.items():
        field = form.get(name)
        if field is not None:
            checked[name] = _coerce(field, value, profile)
    for field in profile.form:
        if checked.get(field.name) is None:
            _fill(field, checked, profile)
    return checked


def _fill(field: InputField, inputs: dict[str, Any], profile: AppProfile) -> None:
    """Fill a missing input.

    Dify ignores the default of a required field, so it is sent. A missing optional text would be "None" in some apps.
    """
    if field.default not in (None, ""):
        inputs[field.name] = _coerce(field, field.default, profile)
    elif field.required:
        raise InvalidRequest(
            f"The app requires the input '{field.name}'{_hint(field)}. Send it in the body's 'inputs' object "
            f"(extra_body in the OpenAI SDKs) or in 'metadata'.",
            param=f"inputs.{field.name}",
            code="missing_required_parameter",
        )
    elif field.is_text:
        inputs[field.name] = ""


def _hint(field: InputField) -> str:
    if field.files is not None:
        return " (a file: send a content part with one)"
    if field.options:
        return f" (one of {', '.join(field.options)})"
    return f" ({field.label})" if field.label and field.label != field.name else ""


def _coerce(field: InputField, value: Any, profile: AppProfile) -> Any:
    if value is None:
        return None
    if field.is_text or field.kind == "select":
        return _coerce_text(field, value)
    if field.kind == "checkbox" and isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes", "on")
    if field.kind == "json_object":
        parsed = _parse_object(field, value)
        return json.encode(parsed).decode() if profile.takes_json_as_text else parsed
    return value


def _coerce_text(field: InputField, value: Any) -> str:
    text = value if isinstance(value, str) else json.encode(value).decode()
    if field.kind == "select" and field.options and text not in field.options:
        raise InvalidRequest(
            f"The input '{field.name}' must be one of {', '.join(field.options)}.", param=f"inputs.{field.name}"
        )
    if not field.fits(text):
        raise InvalidRequest(
            f"The input '{field.name}' has {len(text)} characters. The app allows at most {field.max_length}.",
            param=f"inputs.{field.name}",
        )
    return text


def _parse_object(field: InputField, value: Any) -> dict[str, Any]:
    try:
        parsed = decode_text(value) if isinstance(value, str) else value
    except UNREADABLE:
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequest(f"The input '{field.name}' must be a JSON object.", param=f"inputs.{field.name}")
    return parsed


GeneratePath = Literal["/chat-messages", "/completion-messages", "/workflows/run"]


def generate_path(mode: Mode) -> GeneratePath:
    """Return Dify's route for an app mode."""
    if mode == "workflow":
        return "/workflows/run"
    return "/completion-messages" if mode == "completion" else "/chat-messages"


def stop_path(mode: Mode, task_id: str) -> str:
    """Return Dify's route that stops a running turn."""
    if mode == "workflow":
        return f"/workflows/tasks/{quote(task_id, safe='')}/stop"
    return f"{generate_path(mode)}/{quote(task_id, safe='')}/stop"
