"""Side calls: the titles, tags and queries that chat clients ask for beside a conversation."""

from __future__ import annotations

from openai_dify_proxy.events import Event, TextDelta, TurnFinished, Usage
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.turn_request import SideCall
from openai_dify_proxy.turns.apps import App, Apps
from openai_dify_proxy.turns.callers import Caller


class SideCalls:
    """``TASK_CALLS`` and ``TASK_MODEL`` say whether side calls reach an app, and which."""

    def __init__(self, settings: Settings, apps: Apps) -> None:
        self._off = settings.task_calls == "off"
        self._model = settings.task_model
        self._apps = apps

    def placeholder(self, side_call: SideCall | None) -> list[Event] | None:
        """Return the client's own word for "nothing" if no app is to be asked; a few side calls have none."""
        if side_call is None or not self._off or side_call.nothing is None:
            return None
        return [TextDelta(side_call.nothing), TurnFinished("stop", Usage())]

    def app(self, caller: Caller, side_call: SideCall | None, model: str | None) -> App:
        """Return the app that answers, which for a side call may be another than ``model``'s.

        Raises ModelNotFound, but not for the model of a side call that another app answers.
        """
        return self._apps.choose(caller, model if side_call is None else self._model or model)
