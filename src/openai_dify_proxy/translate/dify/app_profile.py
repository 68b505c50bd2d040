"""The profile of a Dify app: its mode, its inputs, and the version of its Dify."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import Any

from msgspec import Struct

from openai_dify_proxy.translate.dify.file_rules import FileRules, rules_of_field
from openai_dify_proxy.wire.dify import AppInfo, AppParameters, Mode

TEXT_KINDS = frozenset({"text-input", "paragraph"})
QUESTION_NAMES = ("query", "input", "question", "prompt", "text", "message")
SYSTEM_NAMES = ("system_prompt", "system", "instructions")
HISTORY_NAMES = ("messages", "history", "chat_history")
TOOL_NAMES = ("tools", "tool_instructions")
"""Inputs for the instructions about the client's tools and schemas. ``SYSTEM_NAMES`` follow."""
FIRST_RESUMABLE = (1, 14)
"""The first release of Dify with a route for the events of a running workflow."""
FIRST_JSON_OBJECTS = (1, 13)
"""The first release of Dify in which JSON inputs are objects."""

_RELEASE = re.compile(r"(\d+)\.(\d+)")


class InputField(Struct, frozen=True):
    """A field of the app's form; ``kind`` is Dify's (``text-input``, ``paragraph``, ``select``, ``number``, …)."""

    kind: str
    name: str
    label: str | None = None
    required: bool = False
    default: Any = None
    max_length: int | None = None
    options: tuple[str, ...] = ()
    files: FileRules | None = None
    """What a field of kind ``file`` or ``file-list`` accepts; None for the other kinds."""

    @property
    def is_text(self) -> bool:
        return self.kind in TEXT_KINDS

    def fits(self, text: str) -> bool:
        return self.max_length is None or not self.max_length or len(text) <= self.max_length


class AppProfile(Struct, frozen=True):
    """An app as ``GET /info`` and ``GET /parameters`` describe it; ``version`` is Dify's ``X-Version``."""

    mode: Mode
    form: tuple[InputField, ...] = ()
    info: AppInfo = AppInfo()
    parameters: AppParameters = AppParameters()
    version: str | None = None

    @property
    def takes_json_as_text(self) -> bool:
        """Whether inputs of kind ``json_object`` are strings (1.11), not objects (1.13 and later)."""
        release = self.release
        return release is not None and release < FIRST_JSON_OBJECTS

    @property
    def suggests_questions(self) -> bool:
        """Whether the app suggests questions after its answers."""
        switch = self.parameters.suggested_questions_after_answer
        return switch is not None and bool(switch.enabled)

    @property
    def resumable(self) -> bool:
        """Whether the events of a run can be read again after its stream broke off."""
        if self.mode not in ("advanced-chat", "workflow"):
            return False
        release = self.release
        return release is not None and release >= FIRST_RESUMABLE

    @property
    def hides_lost_conversations(self) -> bool:
        """Whether Dify reports no error for an unknown conversation of a chatflow: it hangs (1.13, 1.14) or silently
        starts another one (1.15)."""
        release = self.release
        return self.mode == "advanced-chat" and release is not None and (1, 13) <= release < (1, 16)

    @property
    def release(self) -> tuple[int, int] | None:
        """Major and minor number of Dify's version; None if it is missing or malformed."""
        return None if self.version is None else _release_of(self.version)

    @property
    def converses(self) -> bool:
        """Whether Dify stores conversations of this app."""
        return self.mode not in ("completion", "workflow")

    def text_input(self, names: Iterable[str]) -> InputField | None:
        """Return the text field for the first of ``names`` that the form has, or None."""
        if not self.form:
            return None
        fields = {field.name.lower(): field for field in self.form if field.is_text}
        return next((fields[name] for name in names if name in fields), None)

    def question_input(self, configured: str | None, given: Container[str] = ()) -> str | None:
        """Return the input for the user's text in an app without a query, or None if it is ambiguous.

        It is the configured variable, else the only required text field, else one named like a question, else the only
        one, else the only one that is not in ``given``. Fields for system messages and histories do not count.
        """
        if configured is not None:
            return configured
        texts = [field for field in self.form if field.is_text and field.name.lower() not in _RESERVED_NAMES]
        required = [field.name for field in texts if field.required]
        if len(required) == 1:
            return required[0]
        if named := self.text_input(QUESTION_NAMES):
            return named.name
        open_fields = texts if len(texts) == 1 else [field for field in texts if field.name not in given]
        return open_fields[0].name if len(open_fields) == 1 else None


@lru_cache(maxsize=64)
def _release_of(version: str) -> tuple[int, int] | None:
    found = _RELEASE.match(version)
    return (int(found[1]), int(found[2])) if found else None


_RESERVED_NAMES = frozenset(SYSTEM_NAMES + HISTORY_NAMES + TOOL_NAMES)


def read_form(parameters: AppParameters) -> tuple[InputField, ...]:
    """Return the fields of ``user_input_form``, whose items are objects ``{kind: field}`` with one key."""
    return tuple(
        InputField(
            kind,
            field.variable,
            field.label if isinstance(field.label, str) else None,
            bool(field.required),
            field.default,
            field.max_length if isinstance(field.max_length, int) else None,
            tuple(map(str, field.options)) if isinstance(field.options, list) else (),
            rules_of_field(kind, field),
        )
        for item in parameters.user_input_form
        for kind, field in item.items()
    )
