"""What works in an app, and what does not: the app in Dify compared with its settings, and with OpenAI's requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from openai_dify_proxy.translate.dify.app_profile import AppProfile, InputField
from openai_dify_proxy.translate.dify.request import AppRules
from openai_dify_proxy.wire.dify import Mode

FEATURES = {
    "file_upload": "files",
    "speech_to_text": "speech to text",
    "text_to_speech": "text to speech",
    "retriever_resource": "citations",
    "sensitive_word_avoidance": "moderation",
    "annotation_reply": "annotations",
    "suggested_questions_after_answer": "follow-up questions",
}
"""The switches of an app in Dify, with what they are for."""


class Finding(Struct, frozen=True):
    """A ``problem`` must be solved before the app works; a ``note`` says what to expect of it."""

    kind: Literal["problem", "note"]
    text: str


def all_work(findings: Iterable[Finding]) -> bool:
    """Return whether no finding is a ``problem``."""
    return all(finding.kind == "note" for finding in findings)


def app_findings(rules: AppRules, mode: Mode | None, profile: AppProfile) -> list[Finding]:
    """Return what does not work in an app, and what is worth knowing about it, with what to do.

    ``rules`` and ``mode`` are the app's settings, ``profile`` is the app in Dify.
    """
    return [*_problems(rules, mode, profile), *_notes(rules, mode, profile)]


def app_features(profile: AppProfile) -> Iterator[str]:
    """Yield what is switched on in the app."""
    for name, shown in FEATURES.items():
        switch = getattr(profile.parameters, name)
        if switch is not None and switch.enabled:
            yield shown


def _problems(rules: AppRules, mode: Mode | None, profile: AppProfile) -> Iterator[Finding]:
    if mode and profile.info.mode and mode != profile.info.mode:
        yield Finding("problem", f"mode is {mode!r} in the settings, but {profile.info.mode!r} in Dify. Correct it.")
    if not profile.form:
        return
    names = [field.name for field in profile.form]
    texts = [field.name for field in profile.form if field.is_text]
    for setting, name in _named_inputs(rules, profile):
        if name not in names:
            kind, known, wrong = ("inputs", names, name) if setting == "inputs" else ("text inputs", texts, setting)
            remedy = f"Its {kind} are: {', '.join(known)}. Use one of them, or remove {wrong}."
            text = f"{setting} names {name!r}, which is not an input of the app."
            yield Finding("problem", f"{text} {remedy if known else f'Remove {wrong}.'}")
    if profile.mode == "workflow" and texts and profile.question_input(rules.input_variable) is None:
        yield Finding(
            "problem",
            f"Several inputs take text ({', '.join(texts)}), and none has a usual name for a question. "
            "Set input_variable to the one for the user's text.",
        )


def _named_inputs(rules: AppRules, profile: AppProfile) -> Iterator[tuple[str, str]]:
    if rules.input_variable and not profile.converses:
        yield "input_variable", rules.input_variable
    if rules.system_prompt.startswith("input:"):
        yield "system_prompt", rules.system_prompt.removeprefix("input:")
    for name in rules.inputs:
        yield "inputs", name


def _notes(rules: AppRules, mode: Mode | None, profile: AppProfile) -> Iterator[Finding]:
    for field in _unfilled(rules, profile):
        yield Finding(
            "note",
            f"The app requires the input {field.name!r}, which OpenAI clients do not send. Set it in inputs of the "
            "app, or send it in `inputs` of each request.",
        )
    if profile.mode == "workflow" and not rules.input_variable and not any(field.is_text for field in profile.form):
        yield Finding("note", "The app has no text input, so it never receives the user's text.")
    if profile.info.mode is None and mode is None:
        yield Finding("note", "This Dify does not report the mode of apps, so it was guessed. Set mode to be sure.")
    release = profile.release or (0, 0)
    if profile.mode == "advanced-chat" and (1, 13) <= release < (1, 15):
        yield Finding(
            "note",
            f"Dify {profile.version} does not respond when a chatflow continues an unknown conversation. Where Dify "
            "may have lost a conversation, the proxy looks it up first, with an extra request.",
        )
    if profile.mode == "advanced-chat" and (1, 15) <= release < (1, 16):
        yield Finding(
            "note",
            f"Dify {profile.version} starts a new conversation when a chatflow continues an unknown one. Where Dify "
            "may have lost a conversation, the proxy looks it up first, with an extra request.",
        )


def _unfilled(rules: AppRules, profile: AppProfile) -> Iterator[InputField]:
    """Yield required inputs that have no value in the settings or in a plain OpenAI request.

    While ``input_variable`` is wrong, no text input counts: one of them is for the user's text.
    """
    misnamed = (
        rules.input_variable
        and not profile.converses
        and not any(field.name == rules.input_variable for field in profile.form)
    )
    question = None if profile.converses else profile.question_input(rules.input_variable)
    for field in profile.form:
        automatic = field.name == question or field.default not in (None, "") or (misnamed and field.is_text)
        if field.required and not automatic and field.name not in rules.inputs:
            yield field
