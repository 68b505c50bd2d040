"""The block in which a turn runs: it begins with the request to Dify, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.telemetry import RequestRecord
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.admission.admittance import Admittance
from openai_dify_proxy.turns.claims import ConversationClaim


class TurnBlock:
    """An asynchronous context manager that yields the turn; ``Turns.run`` returns it.

    Entering it sends the request to Dify: raises ProxyError, and ClientDisconnected if the client has disconnected
    before. At its end the claim is released, a running turn is stopped, and nothing waits for either.
    """

    __slots__ = ("_admittance", "_claim", "_close_record", "_end", "_open", "_own_admittance", "_record", "turn")

    def __init__(
        self,
        begin: Callable[[], Awaitable[ActiveTurn]],
        end: Callable[[ActiveTurn], None],
        claim: ConversationClaim,
        admittance: Admittance,
        record: RequestRecord,
        *,
        own_admittance: bool,
        close_record: Callable[[RequestRecord], None],
    ) -> None:
        """``begin`` sends the request and ``end`` ends its turn. An ``own_admittance`` is left at the end."""
        self.turn: ActiveTurn | None = None
        self._open = begin
        self._end = end
        self._claim = claim
        self._admittance = admittance
        self._record = record
        self._own_admittance = own_admittance
        self._close_record = close_record

    async def __aenter__(self) -> ActiveTurn:
        try:
            begin, self._open = self._open, _begun_already  # what it is bound to is needed once
            self.turn = await begin()
        except BaseException as error:
            try:
                await self._claim.release()
            finally:
                self.end(error)
            raise
        return self.turn

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """End the block, with the error that left it if there is one. Its ``turn`` is None afterwards."""
        turn, self.turn = self.turn, None
        if isinstance(error, ProxyError):
            self._record.fail(error)
        try:
            self._record.queued = self._admittance.waited
            if turn is not None:
                self._end(turn)
        finally:
            if self._own_admittance:
                self._admittance.leave()
            self._close_record(self._record)


async def _begun_already() -> ActiveTurn:
    raise RuntimeError("a turn begins once")
