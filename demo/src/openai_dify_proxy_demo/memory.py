"""The turns of a conversation, and the ones that its model receives again.

Dify reads the memory of a turn from its table of messages, and every rule here was seen in recordings:

- The turn that is being asked is in the table already, with an empty answer. The table is read newest first, and its
  first row is left out if it has no answer: that is meant for the turn itself.
- Times are whole seconds, and rows of one second come in no sure order. Here the older one comes first, which is the
  order of the table: the question of a turn that began in the second of another is then sent twice, once before the
  older turns. Dify itself does so most times, and keeps the order at others.
- A chat app sends an empty answer as an empty text, a chatflow leaves it out, and an agent never sends itself the
  question of the turn that is being asked.
- A New Agent has a session of its own instead, which holds the turns that came to their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai_dify_proxy_demo.dialects import Mode
from openai_dify_proxy_demo.events import Usage

Entry = tuple[str, str]
"""Role and text of a message that a model is sent."""


@dataclass
class Message:
    """One stored turn."""

    id: str
    query: str
    inputs: dict[str, Any]
    created_at: int
    """In whole seconds."""
    answer: str = ""
    status: str = "normal"
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    used: tuple[Entry, ...] = ()
    """What an agent's tools were asked and answered, as its model is sent it again."""
    thoughts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The steps of an agent by their ids, as the last event of each told them."""
    in_session: bool = False
    """Whether a New Agent's session holds the turn."""


@dataclass
class Conversation:
    """One thread, which belongs to one app and one user."""

    id: str
    app: str
    user: str
    name: str
    inputs: dict[str, Any]
    created_at: int
    updated_at: int
    messages: list[Message] = field(default_factory=list)
    """In the order in which they were asked."""
    waits_for_human: bool = False
    """A New Agent asked its user something by a tool, and takes nothing else for an answer."""

    def newest_first(self) -> list[Message]:
        """The turns as Dify reads them from its table; those of one second stay in the order of the table."""
        return sorted(self.messages, key=lambda message: message.created_at, reverse=True)


def recalled_turns(conversation: Conversation, current: Message, mode: Mode) -> list[Message]:
    """The stored turns that the model of `current` is sent, in the order in which it is sent them."""
    if mode == "agent":
        return [message for message in conversation.messages if message.in_session]
    rows = conversation.newest_first()
    if mode == "agent-chat":
        rows.remove(current)
    elif not rows[0].answer:
        del rows[0]
    return rows[::-1]


def entries_of(turns: Iterable[Message], mode: Mode) -> Iterator[Entry]:
    """The messages that the model is sent for these turns."""
    for turn in turns:
        yield "user", turn.query
        yield from turn.used
        if turn.answer or mode == "chat":
            yield "assistant", turn.answer


def count_earlier(turns: Sequence[Message], current: Message) -> int:
    """How many questions and answers of other turns the model is sent."""
    return sum(bool(text) for turn in turns if turn is not current for text in (turn.query, turn.answer))
