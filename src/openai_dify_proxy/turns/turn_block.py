"""The block in which a turn runs: it begins with the request to Dify, and leaves nothing behind."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from msgspec import Struct

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.files.artifacts.service import Address
from openai_dify_proxy.telemetry import RequestRecord
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.admission.admittance import Admittance
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.claims import ConversationClaim
from openai_dify_proxy.turns.client import Client
from openai_dify_proxy.turns.runs import Recall

if TYPE_CHECKING:
    from openai_dify_proxy.turns.service import Turns


class TurnPlan(Struct, frozen=True, gc=False):
    """A turn that has not begun: the arguments of ``Turns.run``, and what it has made of them.

    The block forgets it when the turn begins, so it is no part of a cycle.
    """

    caller: Caller
    app: App
    request: TurnRequest
    claim: ConversationClaim
    admittance: Admittance
    client: Client
    recall: Recall | None
    streamed: bool
    address: Address | None


class TurnBlock(Entity):
    """An asynchronous context manager that yields the turn; ``Turns.run`` returns it.

    Entering it sends the request to Dify: raises ProxyError, and ClientDisconnected if the client has disconnected
    before. At its end the claim is released, a running turn is stopped, and nothing waits for either.
    """

    _turns: Turns
    _plan: TurnPlan | None
    _admittance: Admittance
    _record: RequestRecord
    _own_admittance: bool
    """Whether the admittance is left at the end."""
    turn: ActiveTurn | None = None

    async def __aenter__(self) -> ActiveTurn:
        plan, self._plan = self._plan, None  # the turn keeps what it needs: a request may be large
        if plan is None:
            raise RuntimeError("a turn begins once")
        try:
            self.turn = await self._turns.open(plan)
        except BaseException as error:
            try:
                await plan.claim.release()
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
        record = self._record
        if isinstance(error, ProxyError):
            record.fail(error)
        try:
            record.queued = self._admittance.waited
            if turn is not None:
                self._turns.end(turn)
        finally:
            if self._own_admittance:
                self._admittance.leave()
            if record.kind == "turn":  # that of a turn inside another request; the others end with their responses
                self._turns.records.close(record)
