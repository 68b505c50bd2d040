"""The events of a turn: the closed union between Dify's events and OpenAI's answers.

The decoder (``translate/dify/event_decoder.py``) decodes Dify's bytes to these events; the encoders
(``chat_streams.py`` and ``responses_streams.py`` in ``translate/openai/``) encode them as OpenAI's streams. Neither
side depends on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from openai_dify_proxy.errors import ProxyError

FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


class Usage(Struct, frozen=True, gc=False):
    """Dify's token counts for one turn; ``price`` is a decimal string in ``currency``, ``latency`` is in seconds.

    ``prices`` are pairs of currency and price, if there are several; ``price`` is None then.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    price: str | None = None
    currency: str | None = None
    latency: float | None = None
    prices: tuple[tuple[str, str], ...] = ()

    @property
    def costs(self) -> tuple[tuple[str, str], ...]:
        """All pairs of currency and price."""
        if self.price is None or self.currency is None:
            return self.prices
        return ((self.currency, self.price),)


class TurnIds(Struct, frozen=True, gc=False):
    """Dify's ids for a turn; each is None until an event contains it."""

    task_id: str | None = None
    message_id: str | None = None
    conversation_id: str | None = None
    workflow_run_id: str | None = None


class TextDelta(Struct, frozen=True, gc=False):
    text: str


class FixedTextDelta(TextDelta, frozen=True, gc=False):
    """Text that the app adds to the model's, such as that of an answer node. It is never a tool call."""


class ReasoningDelta(Struct, frozen=True, gc=False):
    text: str


class AgentThoughtDelta(ReasoningDelta, frozen=True, gc=False):
    """A thought of an agent of Dify, which calls its own tools. It is never a tool call."""


class TextReplaced(Struct, frozen=True, gc=False):
    """``text`` replaces the whole answer so far.

    ``moderated`` is true for a replacement by moderation (Dify's ``message_replace``), and false for a retried node
    with another text.
    """

    text: str
    moderated: bool


class FileProduced(Struct, frozen=True):
    """A file that the app produced, at Dify's signed URL; ``linked`` means that the text already links to it."""

    url: str
    type: str
    filename: str | None = None
    mime_type: str | None = None
    size: int | None = None
    linked: bool = False


class Citation(Struct, frozen=True):
    """A retrieved passage. ``url`` comes from Dify's document metadata, if present; ``raw`` is Dify's own record."""

    title: str
    url: str | None
    raw: dict[str, Any]


class Citations(Struct, frozen=True):
    items: tuple[Citation, ...]


class StepChanged(Struct, frozen=True, gc=False):
    """A workflow node or an agent's tool started or ended; the event holds no inputs and outputs."""

    title: str
    state: Literal["started", "succeeded", "failed", "retrying"]


class ToolCallStarted(Struct, frozen=True, gc=False):
    """The model calls the client's tool ``name``; ``index`` counts the calls of a turn from 0.

    The input of a ``custom`` tool is free text, that of any other a JSON object.
    """

    index: int
    id: str
    name: str
    custom: bool = False


class ToolCallDelta(Struct, frozen=True, gc=False):
    """Further characters of a call's arguments, or of the input of a custom tool."""

    index: int
    text: str


class ToolCallFinished(Struct, frozen=True, gc=False):
    """The arguments of a call are complete."""

    index: int


class RefusalDelta(Struct, frozen=True, gc=False):
    """The app's moderation replaced an answer that had to fit a schema; ``text`` is the replacement."""

    text: str


class Repairs(Struct, frozen=True, gc=False):
    """Further runs that corrected invalid arguments or an invalid answer; ``usage`` is theirs alone."""

    count: int
    usage: Usage | None = None


class FormAction(Struct, frozen=True):
    """An action that answers a form: a button in Dify."""

    id: str
    title: str


class FormInput(Struct, frozen=True):
    """An input of a form. ``type`` is Dify's, such as ``paragraph``; ``more`` holds the other fields of that type."""

    name: str
    type: str
    default: Any
    more: dict[str, Any]


class HumanInput(Struct, frozen=True):
    """The form that a paused run waits for.

    ``token`` answers it; if it is None, only people in the ``channels`` of Dify can. ``expires_at`` is in seconds since
    1970. ``characters`` is the length of the answer before the pause as Dify counts it, all earlier pauses included.
    """

    token: str | None
    title: str
    content: str
    inputs: tuple[FormInput, ...]
    actions: tuple[FormAction, ...]
    channels: tuple[str, ...]
    expires_at: int | None
    characters: int


class TurnFinished(Struct, frozen=True):
    """The last event of a turn that finished, paused or was stopped.

    ``answer`` is the whole visible text if Dify sent one that differs from the deltas (after a node retry), else None:
    the deltas are the answer. ``usage`` includes that of ``repairs``. ``outputs`` are those of a workflow.
    ``human_input`` is the form of a paused run.
    """

    reason: FinishReason
    usage: Usage | None = None
    answer: str | None = None
    repairs: Repairs | None = None
    outputs: dict[str, Any] | None = None
    human_input: HumanInput | None = None


class TurnFailed(Struct, frozen=True):
    """The last event of a turn that failed."""

    error: ProxyError


Event = (
    TextDelta
    | FixedTextDelta
    | ReasoningDelta
    | AgentThoughtDelta
    | TextReplaced
    | FileProduced
    | Citations
    | StepChanged
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallFinished
    | RefusalDelta
    | TurnFinished
    | TurnFailed
)


DELTAS = (TextDelta, ReasoningDelta)
"""The classes of the events that are increments of text or reasoning."""


def merge_deltas(events: Sequence[Event]) -> list[Event]:
    """Return ``events`` with each run of adjacent text or reasoning deltas merged into one."""
    merged: list[Event] = []
    texts: list[str] = []
    kind: type[TextDelta | ReasoningDelta] | None = None
    for event in events:
        if type(event) is kind:
            texts.append(event.text)
            continue
        if kind is not None:
            merged.append(kind("".join(texts)))
        if isinstance(event, DELTAS):
            kind = type(event)
            texts = [event.text]
        else:
            kind = None
            merged.append(event)
    if kind is not None:
        merged.append(kind("".join(texts)))
    return merged
