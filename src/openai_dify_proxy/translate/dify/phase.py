"""The phase of a turn: which terminal events have arrived, and which may still arrive.

``message_end`` and ``workflow_finished`` arrive in either order, and Dify 1.13 and 1.16 sometimes omit one. A chatflow
sends both, a workflow only the latter, any other app only the former::

    RUNNING ─┬─ message_end ───────▶ MESSAGE_ENDED ── others ────────▶ FINISHED   (chatflow)
             ├─ message_end ───────────────────────────────────────▶ FINISHED   (other apps)
             ├─ run_succeeded ─────▶ RUN_FINISHED ─┬─ others ──────▶ FINISHED   (all but a workflow)
             │                                     └─ run_failed ──▶ FAILED
             ├─ run_succeeded ─────────────────────────────────────▶ FINISHED   (workflow)
             ├─ run_paused ────────────────────────────────────────▶ FINISHED
             ├─ run_failed, error ─────────────────────────────────▶ FAILED
             └─ stream_end ────────────────────────────────────────▶ CUT_OFF

A second ``message_end`` or ``workflow_finished`` of the same kind changes nothing.
In ``MESSAGE_ENDED`` and ``RUN_FINISHED`` the answer is complete: the caller waits briefly for the sibling event, and a
later error does not count. After an annotation or moderation hit, Dify 1.16 sends a ``workflow_finished`` that claims
failure, so ``run_failed`` after ``message_end`` is a success.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from openai_dify_proxy.wire.dify import Mode


class Phase(StrEnum):
    """The phases. ``ending``: the answer is complete, but a sibling event may follow. ``ended``: reading has stopped.

    ``concluded``: Dify has reported the end of the turn.
    """

    RUNNING = "running"
    MESSAGE_ENDED = "message_ended"
    RUN_FINISHED = "run_finished"
    FINISHED = "finished"
    FAILED = "failed"
    CUT_OFF = "cut_off"

    def __init__(self, name: str) -> None:
        self.ending = name != "running"
        self.ended = name in ("finished", "failed", "cut_off")
        self.concluded = name not in ("running", "cut_off")


Signal = Literal["message_end", "run_succeeded", "run_failed", "run_paused", "error", "stream_end"]
"""``run_succeeded`` and ``run_failed`` are ``workflow_finished``, by its status. ``stream_end`` is the end of the
stream or of the wait for the sibling event, or unreadable data."""

Transitions = Mapping[Phase, Mapping[Signal, Phase]]

_RUNNING: dict[Signal, Phase] = {
    "message_end": Phase.FINISHED,
    "run_succeeded": Phase.RUN_FINISHED,
    "run_failed": Phase.FAILED,
    "run_paused": Phase.FINISHED,
    "error": Phase.FAILED,
    "stream_end": Phase.CUT_OFF,
}

_MESSAGE_ENDED: dict[Signal, Phase] = {
    "message_end": Phase.MESSAGE_ENDED,
    "run_succeeded": Phase.FINISHED,
    "run_failed": Phase.FINISHED,
    "run_paused": Phase.FINISHED,
    "error": Phase.FINISHED,
    "stream_end": Phase.FINISHED,
}

_RUN_FINISHED: dict[Signal, Phase] = {
    "message_end": Phase.FINISHED,
    "run_succeeded": Phase.RUN_FINISHED,
    "run_failed": Phase.FAILED,
    "run_paused": Phase.FINISHED,
    "error": Phase.FINISHED,
    "stream_end": Phase.FINISHED,
}

_CHAT: Transitions = {Phase.RUNNING: _RUNNING, Phase.RUN_FINISHED: _RUN_FINISHED}

_CHATFLOW: Transitions = {
    Phase.RUNNING: {**_RUNNING, "message_end": Phase.MESSAGE_ENDED},
    Phase.MESSAGE_ENDED: _MESSAGE_ENDED,
    Phase.RUN_FINISHED: _RUN_FINISHED,
}

_WORKFLOW: Transitions = {Phase.RUNNING: {**_RUNNING, "run_succeeded": Phase.FINISHED}}

TRANSITIONS: Mapping[Mode, Transitions] = {
    "chat": _CHAT,
    "agent-chat": _CHAT,
    "agent": _CHAT,
    "completion": _CHAT,
    "advanced-chat": _CHATFLOW,
    "workflow": _WORKFLOW,
}
