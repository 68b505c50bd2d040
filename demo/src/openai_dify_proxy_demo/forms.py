"""The forms of paused graphs, and the events that show them again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from openai_dify_proxy_demo.events import Event
from openai_dify_proxy_demo.runs import Run
from openai_dify_proxy_demo.script import HUMAN_INPUT_QUESTION

ACTIONS = [
    {"id": "yes", "title": "Yes", "button_style": "primary"},
    {"id": "no", "title": "No", "button_style": "default"},
]


@dataclass
class Form:
    """The form of a paused run. `resume` continues the run with an action and the values of the inputs."""

    id: str
    token: str
    run: Run
    expires_at: int
    resume: Callable[[dict[str, Any], dict[str, Any]], Awaitable[None]]
    channels: list[str] = field(default_factory=lambda: ["console"])
    expired: bool = False
    submitted: bool = False

    @property
    def can_be_answered_here(self) -> bool:
        """Whether clients get the token."""
        return "console" in self.channels

    def reason(self) -> dict[str, Any]:
        """Return the form as `workflow_paused` has it."""
        return {
            "form_id": self.id,
            "form_content": f"{HUMAN_INPUT_QUESTION} {{{{#$output.note#}}}}",
            "inputs": self.inputs(),
            "actions": ACTIONS,
            "node_id": "human",
            "node_title": "Approve",
            "resolved_default_values": {},
            "form_token": self.token if self.can_be_answered_here else None,
            **({"approval_channels": self.channels} if self.run.dialect.empty_lists else {}),
            "expiration_time": self.expires_at,
        }

    def inputs(self) -> list[dict[str, Any]]:
        return [{"output_variable_name": "note", "type": "paragraph", "default": None}]


def running_snapshot(run: Run) -> list[Event]:
    """Return the events with which a reader of a run that goes on begins: no text of it is stored yet."""
    text = [run.envelope.replace_so_far("")] if run.app.mode == "advanced-chat" else []
    return [*run.graph_events[:1], *text, *run.graph_events[1:]]


def snapshot(run: Run) -> list[Event]:
    """Return the events with which a reader of a paused run begins: its start, its text so far, and its form."""
    assert run.form is not None
    envelope, started = run.envelope, [event for event in run.graph_events if event["event"] == "workflow_started"]
    nodes = [event for event in run.graph_events if event["event"].startswith("node_")]
    text = [envelope.replace_so_far(run.text)] if run.app.mode == "advanced-chat" else []
    outputs = {"answer": run.text, "files": {"value_type": "array[file]", "value": []}} if text else {}
    paused = run.graph_events[-1]
    return [
        *started[:1],
        *text,
        *nodes,
        envelope.graph("node_finished", nodes[-1]["data"] | {"status": "paused"}),
        run.graph_events[-2],
        paused | {"data": paused["data"] | {"outputs": outputs}},
    ]
