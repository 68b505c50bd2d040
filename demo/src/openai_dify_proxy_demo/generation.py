"""The routes that start and stop runs."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from starlette.responses import HTMLResponse, Response

from openai_dify_proxy_demo.apps import check_inputs, find_question
from openai_dify_proxy_demo.calls import (
    SCRIPTED_ERRORS,
    Call,
    base_url,
    conversation_not_found,
    is_uuid,
    payload,
    require_chat,
    require_completion,
    require_workflow,
    validation_error,
)
from openai_dify_proxy_demo.dialects import CHAT_MODES, GRAPH_MODES
from openai_dify_proxy_demo.graphs import reject_run
from openai_dify_proxy_demo.input_files import check_files, files_of_inputs, seen
from openai_dify_proxy_demo.replies import ApiError, EventStream, generated_reply
from openai_dify_proxy_demo.runs import PING, Mark, Run
from openai_dify_proxy_demo.script import PRESET_ANSWER, read_script
from openai_dify_proxy_demo.state import DemoState, Generation
from openai_dify_proxy_demo.tool_prompts import spoken_text

NGINX_PAGE = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>502 Bad Gateway</body>\r\n</html>\r\n"


async def chat_messages(call: Call) -> Response:
    user = call.user
    require_chat(call)
    body = payload(call, "ChatRequestPayload", query=True)
    conversation_id = body.get("conversation_id") or ""
    if conversation_id and not is_uuid(conversation_id):
        problem = "Value error, conversation_id must be a valid UUID"
        raise validation_error("ChatRequestPayload", "conversation_id", problem, str(conversation_id))
    mode = body.get("response_mode")
    streaming = mode == "streaming" or (mode is None and call.app.mode == "agent")
    if not streaming and call.app.mode == "agent-chat":
        raise ApiError(400, "invalid_param", "Agent Chat App does not support blocking mode")
    if not streaming and call.app.mode == "agent":
        raise ApiError(400, "bad_request", "Agent App only supports streaming response mode.")
    return await _generate(
        call, user, body, body["query"].replace("\0", ""), streaming=streaming, conversation_id=conversation_id
    )


async def completion_messages(call: Call) -> Response:
    user = call.user
    require_completion(call)
    body = payload(call, "CompletionRequestPayload", query=False)
    question = find_question(call.app, body["inputs"]) or str(body.get("query") or "")
    return await _generate(call, user, body, question, streaming=body.get("response_mode") == "streaming")


async def workflows_run(call: Call) -> Response:
    user = call.user
    require_workflow(call)
    body = payload(call, "WorkflowRunPayload", query=False)
    question = find_question(call.app, body["inputs"])
    return await _generate(call, user, body, question, streaming=body.get("response_mode") == "streaming")


async def stop_chat(call: Call) -> Response:
    user = call.user
    require_chat(call)
    return _stop(call, user)


async def stop_completion(call: Call) -> Response:
    user = call.user
    require_completion(call)
    return _stop(call, user)


async def stop_workflow(call: Call) -> Response:
    user = call.user
    require_workflow(call)
    return _stop(call, user)


async def _generate(
    call: Call, user: str, body: dict[str, Any], question: str, *, streaming: bool, conversation_id: str = ""
) -> Response:
    app, dialect, state = call.app, call.dialect, call.state
    graph = app.mode in GRAPH_MODES
    conversation = state.conversation(conversation_id, app, user) if conversation_id else None
    unknown = bool(conversation_id) and conversation is None
    if unknown and (not (graph and streaming) or dialect.graph_unknown_conversation == "http"):
        raise conversation_not_found(call)
    problem = check_inputs(app, body["inputs"])
    files: list[dict[str, Any]] = []
    try:
        files = check_files(state.uploads, user, app, dialect, body.get("files"))
        files += check_files(state.uploads, user, app, dialect, files_of_inputs(app, body["inputs"]))
    except ApiError as error:
        problem = problem or error.message
    if problem and not (graph and streaming and dialect.graph_rejection != "http"):
        raise ApiError(400, "invalid_param", problem)
    request = Generation(
        app=app,
        dialect=dialect,
        user=user,
        question=question,
        inputs=body["inputs"],
        files=files,
        seen=seen(state.uploads, app, files),
        conversation_id=conversation_id,
        streaming=streaming,
        base_url=base_url(call.request),
    )
    if problem or (unknown and dialect.graph_unknown_conversation == "silence"):
        return _rejected_stream(state, request, problem)
    error_kind = read_script(spoken_text(question), "").error
    if error_kind in SCRIPTED_ERRORS:
        raise SCRIPTED_ERRORS[error_kind]
    if error_kind == "nginx":
        return HTMLResponse(NGINX_PAGE, 502)
    run = state.prepare(request, conversation)
    if conversation is None and app.mode in CHAT_MODES and body.get("auto_generate_name", True):
        await asyncio.sleep(dialect.naming_delay * state.timing.naming)
    state.start(run)
    return EventStream(run) if streaming else await _blocking(run)


def _rejected_stream(state: DemoState, request: Generation, problem: str | None) -> Response:
    """Return the stream of a request that fails before its graph starts: a failed run, or one ping and then silence."""
    run = state.prepare(request, None, stored=False)
    if problem is None or request.dialect.graph_rejection == "silence":
        return _silent_stream(run)
    run.emit(PING)
    reject_run(run, problem)
    run.frames.put_nowait(Mark.END)
    return EventStream(run)


def _silent_stream(run: Run) -> Response:
    """Return a stream of one ping that then stays silent for `Timing.hang`."""
    silent = dataclasses.replace(run, frames=asyncio.Queue(), pings=False)
    silent.emit(PING)
    asyncio.get_running_loop().call_later(run.timing.hang, silent.frames.put_nowait, Mark.END)
    return EventStream(silent)


async def _blocking(run: Run) -> Response:
    """Run to completion and return the answer. A failed run is an HTTP error, except for workflows."""
    if run.app.mode == "advanced-chat" and run.dialect.chatflow_blocking_hangs:
        return _silent_stream(run)
    events: list[dict[str, Any]] = []
    while not isinstance(frame := await run.frames.get(), Mark):
        if isinstance(frame, dict):
            events.append(frame)
    by_name = {event["event"]: event for event in events}
    if run.app.mode == "workflow":
        return generated_reply(_blocking_workflow(run, by_name), run.dialect)
    if error := by_name.get("error"):
        code = "completion_request_error" if error["code"] == "rate_limit_error" else error["code"]
        status = 500 if error["status"] == 500 else 400
        raise ApiError(status, code, error["message"])
    finished = by_name.get("workflow_finished", {}).get("data", {})
    if finished.get("status") == "failed" and "message_end" not in by_name:
        raise ApiError(400, "invalid_param", f"Run failed: {finished['error']}")
    return generated_reply(_blocking_message(run, by_name), run.dialect)


def _blocking_workflow(run: Run, by_name: dict[str, dict[str, Any]]) -> dict[str, Any]:
    keys = ("id", "workflow_id", "status", "outputs", "error", "elapsed_time", "total_tokens", "total_steps")
    ids = {"task_id": run.envelope.task_id, "workflow_run_id": run.envelope.workflow_run_id}
    if "workflow_paused" in by_name:
        return {**ids, "data": by_name["workflow_paused"]["data"] | {"finished_at": None}}
    data = by_name["workflow_finished"]["data"]
    return {**ids, "data": {key: data[key] for key in (*keys, "created_at", "finished_at")}}


def _blocking_message(run: Run, by_name: dict[str, dict[str, Any]]) -> dict[str, Any]:
    envelope = run.envelope
    body: dict[str, Any] = {
        "event": "message",
        "task_id": envelope.task_id,
        "id": envelope.message_id,
        "message_id": envelope.message_id,
        "conversation_id": envelope.conversation_id,
        "mode": run.app.mode,
        "answer": PRESET_ANSWER if "message_replace" in by_name else run.text,
        "metadata": {"annotation_reply": None} | by_name.get("message_end", {}).get("metadata", {}),
        "created_at": envelope.created_at,
    }
    if run.app.mode == "completion":
        del body["conversation_id"]
    if paused := by_name.get("workflow_paused"):
        body |= {
            "event": "workflow_paused",
            "workflow_run_id": envelope.workflow_run_id,
            "data": paused["data"],
        }
    return body


def _stop(call: Call, user: str) -> Response:
    call.state.stop(call.request.path_params["task_id"], call.app, user)
    return call.reply({"result": "success"})
