"""The durations of claims."""

from __future__ import annotations

from msgspec import Struct

from openai_dify_proxy.turns.locks import LOCK_TIMEOUT


class ClaimTiming(Struct, frozen=True):
    """Durations in seconds that only tests change."""

    turn_spacing: float = 1.05
    """From the start of one turn to the start of the next: Dify orders a conversation's messages by whole seconds."""
    lock_timeout: float = LOCK_TIMEOUT
    """How long a turn waits for other turns of its conversation."""


DEFAULT_TIMING = ClaimTiming()
