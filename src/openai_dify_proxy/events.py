"""What happens in a turn: the small closed union between Dify's events and OpenAI's answers.

The decoder (``translate/dify/event_decoder.py``) makes these from Dify's bytes; encoders (``chat_streams.py`` and
``responses_streams.py`` in ``translate/openai/``) make OpenAI's streams from these. Neither side knows the other.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from openai_dify_proxy.errors import ProxyError

FinishReason = Literal["stop", "length", "content_filter"]


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one turn, as Dify counted them; ``price`` is Dify's decimal string in ``currency``."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    price: str | None = None
    currency: str | None = None
    latency: float | None = None


class TurnIds(Struct, frozen=True, gc=False):
    """The names that Dify gave a turn; each is None until an event brought it."""

    task_id: str | None = None
    message_id: str | None = None
    conversation_id: str | None = None
    workflow_run_id: str | None = None


class TextDelta(Struct, frozen=True, gc=False):
    text: str


class ReasoningDelta(Struct, frozen=True, gc=False):
    text: str


class TextReplaced(Struct, frozen=True, gc=False):
    """Everything said so far is void and ``text`` stands in its place.

    ``moderated`` tells a moderation's doing (Dify's ``message_replace``) from a node that was run again and said
    something else.
    """

    text: str
    moderated: bool


class FileProduced(Struct, frozen=True):
    """A file that the app made, under Dify's own signed link; ``linked`` tells that the text links to it already."""

    url: str
    type: str
    filename: str | None = None
    mime_type: str | None = None
    size: int | None = None
    linked: bool = False


class Citation(Struct, frozen=True):
    """A retrieved passage. ``url`` only where Dify's document metadata hold one; ``raw`` is Dify's own record."""

    title: str
    url: str | None
    raw: dict[str, Any]


class Citations(Struct, frozen=True):
    items: tuple[Citation, ...]


class StepChanged(Struct, frozen=True, gc=False):
    """A workflow node or an agent's tool began or ended; only a title and a state, never what went through it."""

    title: str
    state: Literal["started", "succeeded", "failed", "retrying"]


class TurnFinished(Struct, frozen=True):
    """The last event of a turn that came to an end of its own, or was stopped.

    ``answer`` is the whole visible text where Dify told it apart from the deltas (after a node was run again),
    else None: the deltas are the answer.
    """

    reason: FinishReason
    usage: Usage | None = None
    answer: str | None = None


class TurnFailed(Struct, frozen=True):
    """The last event of a turn that failed."""

    error: ProxyError


Event = TextDelta | ReasoningDelta | TextReplaced | FileProduced | Citations | StepChanged | TurnFinished | TurnFailed
