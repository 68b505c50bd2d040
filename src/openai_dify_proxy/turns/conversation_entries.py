"""The entries of conversations in the state."""

from __future__ import annotations

from msgspec import Struct, msgpack

from openai_dify_proxy.events import Usage


class ConversationEntry(Struct, frozen=True, array_like=True):
    """The entry of a history: Dify's conversation, the start of its last turn (seconds since the epoch), and digests of
    the system message and of the instructions that Dify has.

    ``turns`` counts the turns since the model got the instructions or a reminder. ``unasked`` means that Dify got no
    question in the last turn, which was about a form.
    """

    conversation_id: str
    at: float
    system: bytes
    instructions: bytes = b""
    turns: int = 0
    unasked: bool = False


class ConversationRecord(Struct, frozen=True, array_like=True):
    """The record of a Dify conversation, by its id within a scope; ``head`` is the key of its entry.

    ``paused`` names the pause of its last run, if that waits for a person.
    """

    head: str
    at: float
    system: bytes
    instructions: bytes = b""
    turns: int = 0
    unasked: bool = False
    paused: str = ""


class PausedRun(Struct, frozen=True, array_like=True):
    """A run that waits for a person: Dify's ids, the token of its form (empty if it has none), and its actions.

    The ids that the run does not have are empty. ``characters`` is the length of its answer so far, and ``usage`` what
    it has used so far, as the turns before have counted it. ``answered`` means
    that the form was answered, or can no longer be: nobody submits it twice.
    """

    run_id: str
    token: str
    task_id: str
    conversation_id: str
    message_id: str
    characters: int
    actions: tuple[tuple[str, str], ...]
    channels: tuple[str, ...] = ()
    answered: bool = False
    usage: Usage | None = None

    @property
    def name(self) -> str:
        """What its entry is found by: the token, which clients have, or the run's id."""
        return self.token or self.run_id


def pause_pointer(link: bytes) -> str:
    """Return the key under which the history with this fingerprint has the name of its pause."""
    return f"paused:{link.hex()}"


read_paused_run = msgpack.Decoder(PausedRun).decode
encode_entry = msgpack.Encoder().encode
read_entry = msgpack.Decoder(ConversationEntry).decode
read_record = msgpack.Decoder(ConversationRecord).decode
