"""How the versions of Dify differ on the wire, one row each.

Every field stands for a difference seen in the recordings of 1.11.2, 1.13.0 and 1.16.1;
the row 0.15 follows the published source of that version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["chat", "agent-chat", "advanced-chat", "completion", "workflow", "agent"]

GRAPH_MODES: frozenset[str] = frozenset({"advanced-chat", "workflow"})
"""Modes whose stream tells of nodes."""

CHAT_MODES: frozenset[str] = frozenset({"chat", "agent-chat", "advanced-chat", "agent"})
"""Modes that keep conversations and are asked at `/chat-messages`."""


@dataclass(frozen=True)
class Dialect:
    """The manner of one version of Dify."""

    name: str
    server_version: str
    compact_json: bool
    """Streams are compact JSON with raw UTF-8; before that, `json.dumps` with its escapes and spaces."""
    tells_mode: bool
    """`GET /info` has `mode` and `author_name`."""
    gunicorn_headers: bool
    """Answers name their server, and say that the connection is kept."""
    graphs_in_worker: bool
    """Graph streams come from a worker: a ping at once, then whatever the queue lets through."""
    graph_refusal: Literal["http", "silence", "failed-run"]
    """What follows a request that is refused before its graph starts."""
    graph_end: tuple[str, ...]
    """Terminal events of a chatflow that went well, in their order."""
    graph_end_stopped: tuple[str, ...]
    graph_end_failed: tuple[str, ...]
    stop_reason: str
    graph_stop_checks_user: bool
    start_reason: bool
    """`workflow_started` tells why the run started."""
    rate_limit_code: bool
    """Streamed provider rate limits are told apart from other provider errors."""
    text_in_message_file: bool
    """Chat and completion apps answer in `message_file` events when the question has files."""
    empty_lists: bool
    """Empty lists where older versions have null; `reasoning` in the metadata."""
    reasoning_events: bool
    """A model node can send its reasoning apart, as `reasoning_chunk`."""
    human_input: bool
    uploads_bound: bool
    """An uploaded file can be used only with the `user` and the app of its upload."""
    abandoned_chatflow_kept: bool
    """A chatflow whose client left stores its answer all the same."""
    naming_delay: float
    """Seconds that naming a new conversation holds the first byte back."""


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            name="0.15",
            server_version="0.15.8",
            compact_json=False,
            tells_mode=False,
            gunicorn_headers=True,
            graphs_in_worker=False,
            graph_refusal="http",
            graph_end=("workflow_finished", "message_end"),
            graph_end_stopped=("workflow_finished", "message_end"),
            graph_end_failed=("workflow_finished", "error"),
            stop_reason="Workflow stopped.",
            graph_stop_checks_user=True,
            start_reason=False,
            rate_limit_code=False,
            text_in_message_file=False,
            empty_lists=False,
            reasoning_events=False,
            human_input=False,
            uploads_bound=False,
            abandoned_chatflow_kept=False,
            naming_delay=1.0,
        ),
        Dialect(
            name="1.11",
            server_version="1.11.2",
            compact_json=True,
            tells_mode=True,
            gunicorn_headers=True,
            graphs_in_worker=False,
            graph_refusal="http",
            graph_end=("workflow_finished", "message_end"),
            graph_end_stopped=("workflow_finished", "message_end"),
            graph_end_failed=("workflow_finished", "error"),
            stop_reason="Stopped by user.",
            graph_stop_checks_user=True,
            start_reason=False,
            rate_limit_code=False,
            text_in_message_file=True,
            empty_lists=False,
            reasoning_events=False,
            human_input=False,
            uploads_bound=False,
            abandoned_chatflow_kept=False,
            naming_delay=1.0,
        ),
        Dialect(
            name="1.13",
            server_version="1.13.0",
            compact_json=True,
            tells_mode=True,
            gunicorn_headers=True,
            graphs_in_worker=True,
            graph_refusal="silence",
            graph_end=("workflow_finished",),
            graph_end_stopped=("workflow_finished",),
            graph_end_failed=("workflow_finished",),
            stop_reason="Stopped by user.",
            graph_stop_checks_user=True,
            start_reason=True,
            rate_limit_code=False,
            text_in_message_file=False,
            empty_lists=False,
            reasoning_events=False,
            human_input=True,
            uploads_bound=False,
            abandoned_chatflow_kept=True,
            naming_delay=1.0,
        ),
        Dialect(
            name="1.16",
            server_version="1.16.1",
            compact_json=True,
            tells_mode=True,
            gunicorn_headers=False,
            graphs_in_worker=True,
            graph_refusal="failed-run",
            graph_end=("message_end", "workflow_finished"),
            graph_end_stopped=("workflow_finished",),
            graph_end_failed=("workflow_finished",),
            stop_reason="Aborted: User requested stop",
            graph_stop_checks_user=False,
            start_reason=True,
            rate_limit_code=True,
            text_in_message_file=False,
            empty_lists=True,
            reasoning_events=True,
            human_input=True,
            uploads_bound=True,
            abandoned_chatflow_kept=True,
            naming_delay=0.0,
        ),
    )
}
"""The versions that the demo can imitate, by the name that stands after `@` in a key."""

LATEST = "1.16"
