"""Side calls: requests of chat clients for titles, tags and queries, beside the conversation."""

from __future__ import annotations

from openai_dify_proxy.events import Event, TextDelta, TurnFinished, Usage
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.turn_request import SideCall
from openai_dify_proxy.turns.apps import App, Apps
from openai_dify_proxy.turns.callers import Caller


class SideCalls:
    """Applies ``TASK_CALLS`` and ``TASK_MODEL``: whether side calls reach an app, and which one."""

    def __init__(self, settings: Settings, apps: Apps) -> None:
        self._off = settings.task_calls == "off"
        self._model = settings.task_model
        self._apps = apps

    def placeholder(self, side_call: SideCall | None) -> list[Event] | None:
        """Return the client's empty answer if side calls are off; None for the few kinds without an empty answer."""
        if side_call is None or not self._off or side_call.empty_answer is None:
            return None
        return [TextDelta(side_call.empty_answer), TurnFinished("stop", Usage())]

    def app(self, caller: Caller, side_call: SideCall | None, model: str | None) -> App:
        """Return the app for a request; for side calls it is ``TASK_MODEL`` if that is set.

        Raises the errors of ``Apps.choose``; the ``model`` of a side call is not checked if ``TASK_MODEL`` is set.
        """
        if side_call is not None and self._model is not None:
            return self._apps.choose_own(caller, self._model)
        return self._apps.choose(caller, model)
