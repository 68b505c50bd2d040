"""How the versions of Dify differ on the wire, one row each.

Every field stands for a difference seen in the recordings of 1.11.2, 1.13.0 and 1.16.1. Nobody recorded the others:
0.15 follows the published source of that version, 1.14 and 1.15 follow what the history of the source tells, and where
it tells nothing they are as the recorded version before them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    graph_lost: Literal["http", "silence", "anew"]
    """What follows a chatflow's streamed turn in a conversation that is not there: 404, a ping and nothing more, or a
    new conversation without a word of it."""
    chatflow_blocking_hangs: bool
    """A chatflow that is asked not to stream sends a ping and nothing more."""
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
    delete_answers: bool
    """Deleting a conversation answers 200 with a body, and only its owner can. Later versions answer 204; the source of
    1.11 deletes whatever is named, and what 1.13 and 1.16 do with another user's nobody recorded."""
    message_fields: tuple[str, ...]
    """The fields of a turn in `GET /messages`, in their order."""
    thought_fields: tuple[str, ...]
    """The fields of an agent's step there."""


_ASKED = ("id", "conversation_id", "parent_message_id", "inputs", "query", "answer")
_TOLD = ("feedback", "retriever_resources", "created_at", "agent_thoughts")
_SPENT = ("message_tokens", "answer_tokens", "provider_response_latency", "total_price", "currency")
_STEP = ("id", "chain_id", "message_id", "position", "thought")
_TOOL = ("tool", "tool_labels", "tool_input", "created_at", "observation", "files")

_V0_15 = Dialect(
    name="0.15",
    server_version="0.15.8",
    compact_json=False,
    tells_mode=False,
    gunicorn_headers=True,
    graphs_in_worker=False,
    graph_refusal="http",
    graph_lost="http",
    chatflow_blocking_hangs=False,
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
    delete_answers=True,
    message_fields=(*_ASKED, "message_files", *_TOLD, "status", "error"),
    thought_fields=(*_STEP, *_TOOL),
)

_V1_11 = replace(
    _V0_15,
    name="1.11",
    server_version="1.11.2",
    compact_json=True,
    tells_mode=True,
    stop_reason="Stopped by user.",
    text_in_message_file=True,
    delete_answers=False,
)

_V1_13 = replace(
    _V1_11,
    name="1.13",
    server_version="1.13.0",
    graphs_in_worker=True,
    graph_refusal="silence",
    graph_lost="silence",
    chatflow_blocking_hangs=True,
    graph_end=("workflow_finished",),
    graph_end_stopped=("workflow_finished",),
    graph_end_failed=("workflow_finished",),
    start_reason=True,
    text_in_message_file=False,
    human_input=True,
    abandoned_chatflow_kept=True,
    message_fields=(*_ASKED, *_TOLD, "message_files", "status", "error", "extra_contents"),
)

_V1_14 = replace(
    _V1_13,
    name="1.14",
    server_version="1.14.0",
    gunicorn_headers=False,
    chatflow_blocking_hangs=False,
    graph_end=("message_end", "workflow_finished"),
    uploads_bound=True,
    naming_delay=0.0,
)

_V1_15 = replace(
    _V1_14,
    name="1.15",
    server_version="1.15.0",
    graph_refusal="failed-run",
    graph_lost="anew",
    reasoning_events=True,
)

_V1_16 = replace(
    _V1_15,
    name="1.16",
    server_version="1.16.1",
    graph_lost="http",
    stop_reason="Aborted: User requested stop",
    graph_stop_checks_user=False,
    rate_limit_code=True,
    empty_lists=True,
    message_fields=(*_ASKED, *_TOLD, "message_files", *_SPENT, "status", "error", "extra_contents", "total_tokens"),
    thought_fields=(*_STEP, "answer", *_TOOL),
)

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (_V0_15, _V1_11, _V1_13, _V1_14, _V1_15, _V1_16)}
"""The versions that the demo can imitate, by the name that stands after `@` in a key."""

LATEST = "1.16"
