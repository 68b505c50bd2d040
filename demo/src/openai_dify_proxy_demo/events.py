"""Dify's events as JSON, with the recorded fields in the recorded order."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from openai_dify_proxy_demo.dialects import Dialect, Mode
from openai_dify_proxy_demo.file_store import MadeFile

Event = dict[str, Any]

PROVIDER_ERRORS: dict[str, tuple[str, int, str]] = {
    "bad": ("completion_request_error", 400, "[demo] Bad Request Error, the model refused the request"),
    "rate": ("completion_request_error", 400, "[demo] Rate Limit Error, too many requests to the model"),
    "auth": ("completion_request_error", 400, "Incorrect API key provided"),
    "conn": ("completion_request_error", 400, "[demo] Connection Error, the model cannot be reached"),
    "raw": ("invalid_param", 400, "the model's plugin sent an error without a code"),
    "unanswered": (
        "completion_request_error",
        400,
        "Cannot provide a new user prompt when the message history contains unprocessed tool calls.",
    ),
    "internal": ("internal_server_error", 500, "Internal Server Error, please contact support."),
}
"""Code, status and message of errors during a run."""


def provider_error(kind: str) -> tuple[str, int, str]:
    """Return code, status and message of an error kind; unknown kinds are bad requests."""
    return PROVIDER_ERRORS.get(kind, PROVIDER_ERRORS["bad"])


@dataclass(frozen=True)
class Usage:
    """Token counts of one run, with the prices of the recorded model."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    priced: bool = True
    """False for the zero usage of a graph in which no model node finished, which has no prices."""

    timed: bool = True
    """False for stopped runs since 1.16, which omit the generation times."""

    def fields(self) -> dict[str, Any]:
        prompt = (Decimal(self.prompt_tokens) * Decimal("2.50") * Decimal("0.000001")).quantize(Decimal("1E-7"))
        completion = (Decimal(self.completion_tokens) * Decimal("10.00") * Decimal("0.000001")).quantize(
            Decimal("1E-7")
        )
        return {
            "prompt_tokens": self.prompt_tokens,
            "prompt_unit_price": "2.50" if self.priced else "0.0",
            "prompt_price_unit": "0.000001" if self.priced else "0.0",
            "prompt_price": str(prompt) if self.priced else "0.0",
            "completion_tokens": self.completion_tokens,
            "completion_unit_price": "10.00" if self.priced else "0.0",
            "completion_price_unit": "0.000001" if self.priced else "0.0",
            "completion_price": str(completion) if self.priced else "0.0",
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "total_price": str(prompt + completion) if self.priced else "0.0",
            "currency": "USD",
            "latency": 0.25 if self.priced else 0.0,
            **(self._times() if self.timed else {}),
        }

    def _times(self) -> dict[str, Any]:
        generated = self.completion_tokens > 0
        return {"time_to_first_token": 0.05 if generated else None, "time_to_generate": 0.2 if generated else None}


def count_tokens(text: str) -> int:
    """Return the token count of a text: one per four characters, rounded up."""
    return -(-len(text) // 4)


@dataclass(frozen=True)
class Envelope:
    """The ids of one run, and its events."""

    mode: Mode
    dialect: Dialect
    task_id: str
    message_id: str
    conversation_id: str
    workflow_run_id: str
    workflow_id: str
    end_user_id: str
    user: str
    created_at: int
    user_sent_files: bool = False

    def chat(self, event: str, **fields: Any) -> Event:
        """Return an event of a message, with its task id."""
        return {**self._message(event), "task_id": self.task_id, **fields}

    def error(self, code: str, status: int, message: str) -> Event:
        """Return an error event, which has no task id."""
        if status == 500:
            return {**self._message("error"), "code": code, "message": message, "status": status}
        return {**self._message("error"), "code": code, "status": status, "message": message}

    def graph(self, event: str, data: dict[str, Any]) -> Event:
        """Return an event of a graph or node."""
        ids = {"workflow_run_id": self.workflow_run_id, "task_id": self.task_id}
        if self.mode == "workflow":
            return {"event": event, **ids, "data": data}
        return {**self.chat(event), "workflow_run_id": self.workflow_run_id, "data": data}

    def synthetic(self, event: str, data: dict[str, Any]) -> Event:
        """Return an event of a graph that never ran, without conversation and message ids."""
        return {"event": event, "task_id": self.task_id, "workflow_run_id": self.workflow_run_id, "data": data}

    def text(self, piece: str, selector: tuple[str, str] = ("llm", "text")) -> Event:
        """Return a piece of the answer as the event that this mode uses."""
        if self.mode == "workflow":
            return self.graph("text_chunk", {"text": piece, "from_variable_selector": list(selector)})
        if self.mode in ("agent-chat", "agent"):
            return self.chat("agent_message", id=self.message_id, answer=piece)
        if self.mode == "advanced-chat":
            return self.message(piece, list(selector))
        in_file = self.dialect.text_in_message_file and self.user_sent_files
        return self.message(piece, self._no_selector(), "message_file" if in_file else "message")

    def message(self, answer: str, selector: list[str] | None = None, event: str = "message") -> Event:
        selector = self._no_selector() if selector is None else selector
        return self.chat(event, id=self.message_id, answer=answer, from_variable_selector=selector)

    def replace_so_far(self, answer: str) -> Event:
        """Return the event with which a snapshot of a chatflow shows the answer so far."""
        return self.chat("message_replace", answer=answer, reason="")

    def replace(self, answer: str) -> Event:
        """Return the event by which output moderation replaces the whole answer."""
        return self.chat("message_replace", answer=answer, reason="output_moderation")

    def reasoning(self, text: str, *, final: bool) -> Event:
        message_id = None if self.mode == "workflow" else self.message_id
        data = {"message_id": message_id, "reasoning": text, "node_id": "llm", "is_final": final}
        if self.mode == "workflow":
            return self.graph("reasoning_chunk", data)
        return self.chat("reasoning_chunk", data=data)

    def thought(
        self, thought_id: str, position: int, text: str = "", tool: ToolCall | None = None, files: tuple[str, ...] = ()
    ) -> Event:
        """Return an agent step, which Dify resends in full as it grows."""
        return self.chat(
            "agent_thought",
            id=thought_id,
            position=position,
            thought=text,
            observation=tool.observation if tool else "",
            tool=tool.name if tool else "",
            tool_labels={tool.name: {"en_US": tool.label, "zh_Hans": tool.label}} if tool else {},
            tool_input=tool.input if tool else "",
            message_files=list(files),
        )

    def end(
        self,
        usage: Usage,
        *,
        resources: list[dict[str, Any]],
        files: list[dict[str, Any]],
        reasoning: dict[str, str] | None = None,
        annotation: dict[str, Any] | None = None,
    ) -> Event:
        """Return `message_end`, with usage, citations and files."""
        metadata: dict[str, Any] = {"annotation_reply": annotation}
        if self.dialect.empty_lists and self.mode != "advanced-chat" and annotation is None:
            metadata.pop("annotation_reply")
        metadata |= {"retriever_resources": resources, "usage": usage.fields()}
        if self.dialect.empty_lists:
            metadata["reasoning"] = reasoning or {}
        no_files: list[Any] | None = [] if self.dialect.empty_lists or self.mode == "advanced-chat" else None
        return self.chat("message_end", id=self.message_id, metadata=metadata, files=files or no_files)

    def _message(self, event: str) -> Event:
        fields: Event = {"event": event, "conversation_id": self.conversation_id, "message_id": self.message_id}
        if self.mode == "completion":
            fields.pop("conversation_id")
        return {**fields, "created_at": self.created_at}

    def _no_selector(self) -> list[str] | None:
        return [] if self.dialect.empty_lists else None


@dataclass(frozen=True)
class ToolCall:
    """A tool call of an agent; `observation` is its result."""

    name: str
    label: str
    input: str
    observation: str = ""


@dataclass(frozen=True)
class Node:
    """One node of a graph, and the data of its events."""

    id: str
    node_id: str
    kind: str
    started_at: int
    title: str = ""

    def started(self) -> dict[str, Any]:
        return {
            **self._head(None),
            "created_at": self.started_at,
            "extras": {},
            "iteration_id": None,
            "loop_id": None,
            "agent_strategy": None,
        }

    def finished(
        self,
        *,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        process_data: dict[str, Any] | None = None,
        status: str = "succeeded",
        error: str | None = None,
        metadata: dict[str, Any] | None = None,
        files: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        return {
            **self._head(inputs),
            "process_data": process_data or {},
            "process_data_truncated": False,
            "outputs": outputs,
            "outputs_truncated": False,
            "status": status,
            "error": error,
            "elapsed_time": 0.01,
            "execution_metadata": metadata,
            "created_at": self.started_at,
            "finished_at": self.started_at,
            "files": files or [],
            "iteration_id": None,
            "loop_id": None,
        }

    def _head(self, inputs: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": self.id,
            "node_id": self.node_id,
            "node_type": self.kind,
            "title": self.title or self.node_id,
            "index": 1,
            "predecessor_node_id": None,
            "inputs": inputs,
            "inputs_truncated": False,
        }


def workflow_started(envelope: Envelope, inputs: dict[str, Any], reason: str = "initial") -> dict[str, Any]:
    data = {
        "id": envelope.workflow_run_id,
        "workflow_id": envelope.workflow_id,
        "inputs": inputs,
        "created_at": envelope.created_at,
    }
    if not envelope.dialect.info_has_mode:
        data["sequence_number"] = 1
    if envelope.dialect.start_reason:
        data["reason"] = reason
    return data


def workflow_finished(
    envelope: Envelope,
    status: str,
    outputs: dict[str, Any] | None,
    *,
    error: str | None = None,
    tokens: int = 0,
    steps: int = 0,
    exceptions: int = 0,
    files: list[dict[str, Any]] | None = None,
    synthetic: bool = False,
) -> dict[str, Any]:
    """Return the data of `workflow_finished`. `synthetic` is for a graph that never ran; it has no creator."""
    return {
        "id": envelope.workflow_run_id,
        "workflow_id": envelope.workflow_id,
        "status": status,
        "outputs": outputs,
        "error": error,
        "elapsed_time": 0.0 if synthetic else 0.28,
        "total_tokens": tokens,
        "total_steps": steps,
        "created_by": {} if synthetic else {"id": envelope.end_user_id, "user": envelope.user},
        "created_at": envelope.created_at,
        "finished_at": envelope.created_at,
        "exceptions_count": exceptions,
        "files": files or [],
    }


def citations(*, source: str, dialect: Dialect) -> list[dict[str, Any]]:
    """Return two cited documents, the first with a URL."""
    documents = (
        ("Handbook", "https://example.com/handbook", "The demo apps repeat each message."),
        ("notes.txt", None, "The demo chat apps remember earlier messages."),
    )
    return [
        {
            "position": position,
            "dataset_id": "11111111-1111-4111-8111-111111111111",
            "dataset_name": "Demo knowledge base",
            "document_id": f"22222222-2222-4222-8222-22222222222{position}",
            "document_name": name,
            "data_source_type": "website_crawl" if url else "upload_file",
            "segment_id": f"33333333-3333-4333-8333-33333333333{position}",
            "retriever_from": source,
            "score": 0.5,
            "hit_count": 1,
            "word_count": len(content),
            "segment_position": 1,
            "index_node_hash": f"{position:064x}",
            "content": content,
            "page": None,
            "doc_metadata": {"url": url} if url else None,
            "title": name,
            "files": None,
            **({"summary": None} if dialect.empty_lists else {}),
        }
        for position, (name, url, content) in enumerate(documents, start=1)
    ]


def file_object(made: MadeFile, url: str, *, dialect: Dialect) -> dict[str, Any]:
    """Return an entry of `files` for a file that a tool or model made."""
    return {
        "dify_model_identity": "__dify__file__",
        "id": None,
        **({} if dialect.empty_lists else {"tenant_id": "44444444-4444-4444-8444-444444444444"}),
        "type": made.kind,
        "transfer_method": "tool_file",
        "remote_url": None,
        **({"reference": f"dify-file-ref:{made.id}"} if dialect.empty_lists else {}),
        "filename": made.name,
        "extension": made.extension,
        "mime_type": made.media_type,
        "size": made.size,
        "related_id": made.id,
        "url": url,
    }
