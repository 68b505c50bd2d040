"""Short builders of Dify's events and of the streams that hold them."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

TASK, MESSAGE, CONVERSATION, RUN = "t-1", "m-1", "c-1", "r-1"
PING = b"event: ping\n\n"

OF_MESSAGE: Json = {"conversation_id": CONVERSATION, "message_id": MESSAGE, "created_at": 1, "task_id": TASK}
OF_RUN: Json = {"task_id": TASK, "workflow_run_id": RUN}


def frame(event: Json) -> bytes:
    """Return an event as Dify 1.8 and later send it: one line of compact JSON that escapes only control characters."""
    return b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def stream(*events: Json | bytes) -> bytes:
    """Return the bytes of a stream. Bytes among the events are inserted unchanged."""
    return b"".join(event if isinstance(event, bytes) else frame(event) for event in events)


def message(answer: str, node: str | None = None, *, event: str = "message") -> Json:
    selector = [node, "text"] if node else None
    return {"event": event, **OF_MESSAGE, "id": MESSAGE, "answer": answer, "from_variable_selector": selector}


def agent_message(answer: str) -> Json:
    return {"event": "agent_message", **OF_MESSAGE, "id": MESSAGE, "answer": answer}


def agent_thought(key: str, thought: str = "", *, tool: str = "", observation: str = "") -> Json:
    return {
        "event": "agent_thought",
        **OF_MESSAGE,
        "id": key,
        "position": 1,
        "thought": thought,
        "tool": tool,
        "tool_labels": {},
        "tool_input": f'{{"{tool}": {{}}}}' if tool else "",
        "observation": observation,
        "message_files": [],
    }


def message_file(url: str, *, belongs_to: str = "assistant") -> Json:
    return {"event": "message_file", **OF_MESSAGE, "id": "f-1", "type": "image", "belongs_to": belongs_to, "url": url}


def message_replace(answer: str, *, reason: str | None = "output_moderation") -> Json:
    event = {"event": "message_replace", **OF_MESSAGE, "answer": answer}
    return event if reason is None else {**event, "reason": reason}


def usage(prompt: int, completion: int, **more: Any) -> Json:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def message_end(tokens: Json | None = None, *, resources: list[Json] | None = None, files: Any = None) -> Json:
    metadata: Json = {"annotation_reply": None, "retriever_resources": resources or []}
    if tokens is not None:
        metadata["usage"] = tokens
    return {"event": "message_end", **OF_MESSAGE, "id": MESSAGE, "metadata": metadata, "files": files}


def error(text: str, code: str | None = "completion_request_error", status: int = 400) -> Json:
    """Return an error event. Unlike other events it has no task id."""
    data = {"conversation_id": CONVERSATION, "message_id": MESSAGE, "created_at": 1, "status": status, "message": text}
    return {"event": "error", **data} if code is None else {"event": "error", "code": code, **data}


def workflow_started() -> Json:
    return {"event": "workflow_started", **OF_RUN, "data": {"id": RUN, "inputs": {"sys.query": "secret"}}}


def workflow_finished(status: str = "succeeded", outputs: Json | None = None, **data: Any) -> Json:
    return {"event": "workflow_finished", **OF_RUN, "data": {"id": RUN, "status": status, "outputs": outputs, **data}}


def workflow_paused(*reasons: Json, answer: str | None = None) -> Json:
    outputs = {} if answer is None else {"answer": answer}
    data = {"status": "paused", "outputs": outputs, "reasons": list(reasons)}
    return {"event": "workflow_paused", **OF_RUN, "data": data}


def node(event: str, node_id: str = "llm", node_type: str = "llm", **data: Any) -> Json:
    title = data.pop("title", node_id.title())
    fields = {"id": "n-1", "node_id": node_id, "node_type": node_type, "title": title, "inputs": {}}
    process_data = {"prompts": [{"role": "system", "text": "secret"}]}
    return {"event": event, **OF_RUN, "data": {**fields, "process_data": process_data, **data}}


def text_chunk(text: str, node_id: str = "llm") -> Json:
    return {"event": "text_chunk", **OF_RUN, "data": {"text": text, "from_variable_selector": [node_id, "text"]}}


def reasoning_chunk(reasoning: str, *, final: bool = False) -> Json:
    return {
        "event": "reasoning_chunk",
        **OF_RUN,
        "data": {"message_id": MESSAGE, "node_id": "llm", "reasoning": reasoning, "is_final": final},
    }


def agent_log(label: str, status: str, key: str = "l-1") -> Json:
    return {"event": "agent_log", **OF_RUN, "data": {"id": key, "label": label, "status": status, "data": {}}}
