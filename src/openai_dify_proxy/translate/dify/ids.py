"""The ids of a turn, collected from its first events."""

from __future__ import annotations

import re

from openai_dify_proxy.events import TurnIds
from openai_dify_proxy.wire.dify import DifyEvent, Mode

NO_IDS = TurnIds()

_ID = re.compile(r"[!-~]{1,128}")
"""Dify's ids are UUIDs. Anything that is safe in a header is passed on."""


class IdCollector:
    """Collects Dify's ids; the first valid value of each counts, and invalid ones count as absent.

    ``known`` are those of a run that another turn has started.

    ``incomplete`` is true until the id that comes last in this app mode is known; every event must be read until then.
    ``started`` is true once an event of the current stream was read.
    """

    __slots__ = ("_last", "ids", "incomplete", "started")

    def __init__(self, mode: Mode, known: TurnIds = NO_IDS) -> None:
        self._last = "workflow_run_id" if mode == "workflow" else "message_id"
        self.ids = known
        self.incomplete = True
        self.started = False

    def begin_stream(self) -> None:
        """Expect the events of another stream of the same run."""
        self.incomplete = True
        self.started = False

    def read(self, event: DifyEvent) -> None:
        known = self.ids
        self.ids = TurnIds(
            known.task_id or _valid(event.task_id),
            known.message_id or _valid(event.message_id),
            known.conversation_id or _valid(event.conversation_id),
            known.workflow_run_id or _valid(event.workflow_run_id),
        )
        self.started = True
        self.incomplete = getattr(self.ids, self._last) is None


def _valid(value: str | None) -> str | None:
    return value if value is not None and _ID.fullmatch(value) else None
