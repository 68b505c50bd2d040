"""How a turn waits for its slot, as the API layer sees it."""

from __future__ import annotations

from collections.abc import Callable

from openai_dify_proxy.entity import Entity


class TurnWait(Entity):
    """The wait of one turn: at most ``limit`` seconds in all. Turns ``in_background`` wait behind the others.

    ``queued_at`` is the position at which the turn first entered the queue, or None if it did not have to wait.
    """

    limit: float
    in_background: bool = False
    queued_at: int | None = None
    _waited: float = 0.0
    _position: Callable[[], int] | None = None

    @property
    def left(self) -> float:
        """The rest of the limit."""
        return max(0.0, self.limit - self._waited)

    @property
    def position(self) -> int | None:
        """The current position in the queue, 1 for the next turn; None while the turn is not queued."""
        return None if self._position is None else self._position()

    def enter(self, position: Callable[[], int]) -> None:
        """Record that the turn is queued; ``position`` returns its current position."""
        self._position = position
        if self.queued_at is None:
            self.queued_at = position()

    def leave(self, waited: float) -> None:
        """Record that the turn is no longer queued, after ``waited`` seconds."""
        self._position = None
        self._waited += waited
