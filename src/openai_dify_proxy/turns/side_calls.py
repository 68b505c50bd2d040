"""What becomes of side calls: the titles, tags and queries that chat clients ask for beside a conversation."""

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

    def recognise(self, turn: TurnRequest) -> SideCall | None:
        return None if turn.origin is not None else detect_side_call(turn)

    def answer(self, task: SideCall | None) -> list[Event] | None:
        """What the client takes for "nothing", if nobody is to be asked; a few tasks have no such answer."""
        if task is None or not self._off or task.nothing is None:
            return None
        return [TextDelta(task.nothing), TurnFinished("stop", Usage())]

    def route(self, task: SideCall | None, model: str | None, turn: TurnRequest) -> tuple[str | None, TurnRequest]:
        """The model and the request with which Dify is asked."""
        if task is None:
            return model, turn
        return self._model or model, structs.replace(turn, stateless=True)
