"""The differences between Dify versions on the wire.

The dialects of 1.11, 1.13 and 1.16 follow recordings of 1.11.2, 1.13.0 and 1.16.1. The others were not recorded: 0.15
follows its published source; 1.14 and 1.15 follow the source history, and otherwise the recorded version before them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["chat", "agent-chat", "advanced-chat", "completion", "workflow", "agent"]

GRAPH_MODES: frozenset[str] = frozenset({"advanced-chat", "workflow"})
"""Modes that run a graph of nodes and stream node events."""

CHAT_MODES: frozenset[str] = frozenset({"chat", "agent-chat", "advanced-chat", "agent"})
"""Modes with conversations, which are served at `/chat-messages`."""


@dataclass(frozen=True)
class Dialect:
    """The wire behaviour of one Dify version."""

    name: str
    server_version: str
    compact_json: bool
    """Whether streams are compact JSON with raw UTF-8; if not, they are the output of `json.dumps`."""
    info_has_mode: bool
    """Whether `GET /info` has `mode` and `author_name`."""
    gunicorn_headers: bool
    """Whether responses have the headers `Server: gunicorn` and `Connection: keep-alive`."""
    graphs_in_worker: bool
    """Whether graphs run in a queue worker; their streams then start with a ping."""
    graph_rejection: Literal["http", "silence", "failed-run"]
    """How a streamed request fails before its graph starts."""
    graph_unknown_conversation: Literal["http", "silence", "new-conversation"]
    """How a streaming chatflow handles an unknown conversation: a 404, a ping and then silence, or a new conversation
    without notice."""
    chatflow_blocking_hangs: bool
    """Whether a chatflow in blocking mode sends one ping and then hangs."""
    graph_end: tuple[str, ...]
    """The terminal events of a successful chatflow, in order."""
    graph_end_stopped: tuple[str, ...]
    graph_end_failed: tuple[str, ...]
    stop_reason: str
    graph_stop_checks_user: bool
    start_reason: bool
    """Whether `workflow_started` has a `reason`."""
    rate_limit_code: bool
    """Whether streamed rate limits of the model provider have their own error code and status."""
    text_in_message_file: bool
    """Whether chat and completion apps answer in `message_file` events if the request has files."""
    empty_lists: bool
    """Whether empty lists replace null; the metadata then has `reasoning`."""
    reasoning_events: bool
    """Whether a model node can send its reasoning separately, as `reasoning_chunk`."""
    resumable: bool
    """Whether a client can read on in the events of a run whose stream it lost."""
    human_input: bool
    """Whether a workflow or chatflow can pause for human input."""
    uploads_bound: bool
    """Whether an uploaded file is usable only by the `user` and app that uploaded it."""
    stores_abandoned_chatflow_answer: bool
    """Whether a chatflow stores its answer after its client disconnected."""
    naming_delay: float
    """Seconds by which naming a new conversation delays the first byte."""
    delete_returns_body: bool
    """Whether deleting a conversation returns 200 with a body and checks the user.

    Later versions return 204. The source of 1.11 does not check the user; for 1.13 and 1.16 this was not recorded.
    """
    fixed_text_first: bool
    """Whether the fixed text at the beginning of a chatflow's answer is sent before the events of the start node."""
    message_fields: tuple[str, ...]
    """The fields of a turn in `GET /messages`, in order."""
    thought_fields: tuple[str, ...]
    """The fields of an agent step in `GET /messages`, in order."""


_QUESTION_FIELDS = ("id", "conversation_id", "parent_message_id", "inputs", "query", "answer")
_ANSWER_FIELDS = ("feedback", "retriever_resources", "created_at", "agent_thoughts")
_USAGE_FIELDS = ("message_tokens", "answer_tokens", "provider_response_latency", "total_price", "currency")
_STEP_FIELDS = ("id", "chain_id", "message_id", "position", "thought")
_TOOL_FIELDS = ("tool", "tool_labels", "tool_input", "created_at", "observation", "files")

_V0_15 = Dialect(
    name="0.15",
    server_version="0.15.8",
    compact_json=False,
    info_has_mode=False,
    gunicorn_headers=True,
    graphs_in_worker=False,
    graph_rejection="http",
    graph_unknown_conversation="http",
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
    resumable=False,
    human_input=False,
    uploads_bound=False,
    stores_abandoned_chatflow_answer=False,
    naming_delay=1.0,
    delete_returns_body=True,
    fixed_text_first=False,
    message_fields=(*_QUESTION_FIELDS, "message_files", *_ANSWER_FIELDS, "status", "error"),
    thought_fields=(*_STEP_FIELDS, *_TOOL_FIELDS),
)

_V1_11 = replace(
    _V0_15,
    name="1.11",
    server_version="1.11.2",
    compact_json=True,
    info_has_mode=True,
    stop_reason="Stopped by user.",
    text_in_message_file=True,
    delete_returns_body=False,
)

_V1_13 = replace(
    _V1_11,
    name="1.13",
    server_version="1.13.0",
    graphs_in_worker=True,
    graph_rejection="silence",
    graph_unknown_conversation="silence",
    chatflow_blocking_hangs=True,
    graph_end=("workflow_finished",),
    graph_end_stopped=("workflow_finished",),
    graph_end_failed=("workflow_finished",),
    start_reason=True,
    text_in_message_file=False,
    human_input=True,
    stores_abandoned_chatflow_answer=True,
    message_fields=(*_QUESTION_FIELDS, *_ANSWER_FIELDS, "message_files", "status", "error", "extra_contents"),
)

_V1_14 = replace(
    _V1_13,
    name="1.14",
    server_version="1.14.0",
    gunicorn_headers=False,
    chatflow_blocking_hangs=False,
    resumable=True,
    graph_end=("message_end", "workflow_finished"),
    uploads_bound=True,
    naming_delay=0.0,
)

_V1_15 = replace(
    _V1_14,
    name="1.15",
    server_version="1.15.0",
    graph_rejection="failed-run",
    graph_unknown_conversation="new-conversation",
    reasoning_events=True,
)

_V1_16 = replace(
    _V1_15,
    name="1.16",
    server_version="1.16.1",
    graph_unknown_conversation="http",
    stop_reason="Aborted: User requested stop",
    graph_stop_checks_user=False,
    rate_limit_code=True,
    empty_lists=True,
    fixed_text_first=True,
    message_fields=(
        *_QUESTION_FIELDS,
        *_ANSWER_FIELDS,
        "message_files",
        *_USAGE_FIELDS,
        "status",
        "error",
        "extra_contents",
        "total_tokens",
    ),
    thought_fields=(*_STEP_FIELDS, "answer", *_TOOL_FIELDS),
)

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (_V0_15, _V1_11, _V1_13, _V1_14, _V1_15, _V1_16)}
"""The dialects by the version suffix of an API key (`@1.13`)."""

LATEST = "1.16"
