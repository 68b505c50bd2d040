"""Side calls: the titles, tags and queries that chat clients ask for beside a conversation."""

from __future__ import annotations

from msgspec import structs

from openai_dify_proxy.events import Event, TextDelta, TurnFinished, Usage
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.openai.side_calls import SideCall, detect_side_call
from openai_dify_proxy.translate.turn_request import TurnRequest


class SideCalls:
    """Side calls never continue a conversation; ``TASK_MODEL`` and ``TASK_CALLS`` say who answers them."""

    def __init__(self, settings: Settings) -> None:
        self._off = settings.task_calls == "off"
        self._model = settings.task_model

    def detect(self, turn: TurnRequest) -> SideCall | None:
        return None if turn.stored_history is not None else detect_side_call(turn)

    def answer(self, side_call: SideCall | None) -> list[Event] | None:
        """Return the client's own placeholder for "nothing" if no app is asked; a few side calls have none."""
        if side_call is None or not self._off or side_call.nothing is None:
            return None
        return [TextDelta(side_call.nothing), TurnFinished("stop", Usage())]

    def route(self, side_call: SideCall | None, model: str | None, turn: TurnRequest) -> tuple[str | None, TurnRequest]:
        """Return the model and the request with which Dify is asked."""
        if side_call is None:
            return model, turn
        return self._model or model, structs.replace(turn, stateless=True)
