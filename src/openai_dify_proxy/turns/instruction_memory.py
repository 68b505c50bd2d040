"""Remembers the instructions about tools and schemas that the model of a conversation has."""

from __future__ import annotations

from openai_dify_proxy.translate.dify.instructions import Extent
from openai_dify_proxy.translate.history import SYSTEM, keyed_hash


class InstructionMemory:
    """The instructions that a turn needs, if any.

    ``digest`` identifies the instructions that the model has after the turn, and ``turns`` counts the turns since it
    got them or a reminder; the entry of the conversation stores both. ``remind_after`` turns later it gets a reminder.
    """

    __slots__ = (
        "_instructions",
        "_remind_after",
        "digest",
        "turns",
    )

    def __init__(self, instructions: str = "", remind_after: int = 0) -> None:
        self.digest = b""
        self.turns = 0
        self._instructions = instructions
        self._remind_after = remind_after

    def hash(self, secret: bytes) -> None:
        """Compute the digest of the turn's instructions."""
        if self._instructions:
            self.digest = keyed_hash(secret, (SYSTEM, self._instructions))[:8]

    def extent(self, known: bytes, turns: int, *, forgetful: bool) -> Extent:
        """Return how much a model needs that has the instructions ``known`` since ``turns`` turns.

        A ``forgetful`` model has nothing of the conversation.
        """
        if forgetful or (self._instructions and known != self.digest):
            return "full"
        self.digest = known
        self.turns = turns + 1
        if self._instructions and self.turns >= self._remind_after:
            self.turns = 0
            return "reminder"
        return "demand"
