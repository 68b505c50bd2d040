"""Remembers the instructions about tools and schemas that the model of a conversation has."""

from __future__ import annotations

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.translate.dify.instructions import Extent
from openai_dify_proxy.translate.history import SYSTEM, keyed_hash


class InstructionMemory(Entity):
    """The ``instructions`` that a turn needs, if any.

    ``digest`` identifies the instructions that the model has after the turn, and ``turns`` counts the turns since it
    got them or a reminder; the entry of the conversation stores both. ``remind_after`` turns later it gets a reminder.
    """

    instructions: str = ""
    remind_after: int = 0
    digest: bytes = b""
    turns: int = 0

    def hash(self, secret: bytes) -> None:
        """Compute the digest of the turn's instructions."""
        if self.instructions:
            self.digest = keyed_hash(secret, (SYSTEM, self.instructions))[:8]

    def extent(self, known: bytes, turns: int, *, forgetful: bool) -> Extent:
        """Return how much a model needs that has the instructions ``known`` since ``turns`` turns.

        A ``forgetful`` model has nothing of the conversation.
        """
        if forgetful or (self.instructions and known != self.digest):
            return "full"
        self.digest = known
        self.turns = turns + 1
        if self.instructions and self.turns >= self.remind_after:
            self.turns = 0
            return "reminder"
        return "demand"
