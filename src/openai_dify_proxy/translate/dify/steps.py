"""The progress of a turn: titles and states of workflow nodes and agent tools, without their contents."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy.events import Event, StepChanged
from openai_dify_proxy.wire import dify
from openai_dify_proxy.wire.dify import DifyEvent, NodeData

_SILENT_NODES = frozenset({"start", "end", "answer"})

_STATES: dict[str, Any] = {
    "started": "started",
    "running": "started",
    "start": "started",
    "succeeded": "succeeded",
    "success": "succeeded",
    "partial-succeeded": "succeeded",
    "failed": "failed",
    "error": "failed",
    "exception": "failed",
    "retry": "retrying",
}


class StepReporter:
    """Emits ``StepChanged`` events if progress is ``enabled``."""

    __slots__ = ("_nodes", "_states", "enabled")

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._states: dict[str, str] = {}
        self._nodes: set[tuple[str, str]] | None = None

    def read_node(self, name: str, node: NodeData, out: list[Event]) -> None:
        """Read an event of a node; ``name`` is the event's name."""
        if self.enabled and node.title and node.node_type not in _SILENT_NODES:
            state = {"node_started": "started", "node_retry": "retry"}.get(name, node.status or "succeeded")
            if state == "retry" or not self._is_repeated(node.id, state):
                out.append(StepChanged(node.title, _STATES.get(state, "started")))

    def _is_repeated(self, name: str | None, state: str) -> bool:
        """Return whether a step of this name was in this state before: a snapshot of the run repeats its nodes."""
        if self._nodes is None:
            self._nodes = set()
        repeated = name is not None and (name, state) in self._nodes
        if name is not None:
            self._nodes.add((name, state))
        return repeated

    def read_thought(self, event: DifyEvent, out: list[Event]) -> None:
        if self.enabled and event.tool:
            state = "succeeded" if event.observation else "started"
            self._change(f"{event.id or ''}:{event.tool}", event.tool, state, out)

    def read_log(self, event: DifyEvent, out: list[Event]) -> None:
        if self.enabled:
            log = dify.AGENT_LOG.decode(event.data)
            if log.label:
                self._change(log.id or log.label, log.label, log.status or "started", out)

    def _change(self, key: str, title: str, state: str, out: list[Event]) -> None:
        """Emit a state once; Dify sends it several times."""
        if self._states.get(key) != state:
            self._states[key] = state
            out.append(StepChanged(title, _STATES.get(state, "started")))


NO_STEPS = StepReporter(enabled=False)
"""Reports nothing, and never changes."""
