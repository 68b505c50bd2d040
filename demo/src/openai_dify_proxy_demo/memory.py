"""Stored turns, and the earlier messages that a model receives.

Dify reads the memory of a turn from its table of messages. Every rule here was seen in recordings:

- The current turn is already in the table, with an empty answer. Dify reads the table newest first and skips the first
  row if it has no answer, which is meant to skip the current turn.
- Times are whole seconds, and the order of rows within one second is undefined. Here the older row comes first, as in
  the table. A turn that starts in the same second as an earlier one is then sent twice, once before the older turns.
  Dify mostly does the same, and sometimes orders the rows correctly.
- A chat app sends an empty answer as an empty text, a chatflow omits it, and an agent never receives the current
  question as an earlier message.
- A New Agent has its own session instead, which holds the completed turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai_dify_proxy_demo.dialects import Mode
from openai_dify_proxy_demo.events import Usage

ModelMessage = tuple[str, str]
"""Role and text of a message that a model receives."""


@dataclass
class Message:
    """One stored turn."""

    id: str
    query: str
    inputs: dict[str, Any]
    created_at: int
    """Whole seconds since 1970."""
    answer: str = ""
    status: str = "normal"
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    tool_messages: tuple[ModelMessage, ...] = ()
    """An agent's tool calls and results, as later turns send them to the model."""
    feedback: dict[str, str] | None = None
    """The user's rating."""
    thoughts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The agent steps by id, each as in its last event."""
    in_session: bool = False
    """Whether the session of a New Agent holds the turn."""


@dataclass
class Conversation:
    """A conversation of one app and one user."""

    id: str
    app: str
    user: str
    name: str
    inputs: dict[str, Any]
    created_at: int
    updated_at: int
    messages: list[Message] = field(default_factory=list)
    """The turns in the order in which they started."""
    awaits_human_input: bool = False
    """Whether a New Agent's tool call for human input is unanswered, which makes the next turn fail."""

    def newest_first(self) -> list[Message]:
        """Return the turns as Dify reads them; turns of one second are oldest first."""
        return sorted(self.messages, key=lambda message: message.created_at, reverse=True)


def recalled_turns(conversation: Conversation, current: Message, mode: Mode) -> list[Message]:
    """Return the stored turns that the model of turn `current` receives, in order."""
    if mode == "agent":
        return [message for message in conversation.messages if message.in_session]
    rows = conversation.newest_first()
    if mode == "agent-chat":
        rows.remove(current)
    elif not rows[0].answer:
        del rows[0]
    return rows[::-1]


def model_messages(turns: Iterable[Message], mode: Mode) -> Iterator[ModelMessage]:
    """Yield the messages of these turns as the model receives them."""
    for turn in turns:
        yield "user", turn.query
        yield from turn.tool_messages
        if turn.answer or mode == "chat":
            yield "assistant", turn.answer


def count_earlier(turns: Sequence[Message], current: Message) -> int:
    """Return how many questions and answers of turns other than `current` the model receives."""
    return sum(bool(text) for turn in turns if turn is not current for text in (turn.query, turn.answer))
