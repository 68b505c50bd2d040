"""The demo's HTTP routes: Dify's service API, as far as a proxy uses it."""

from __future__ import annotations

import asyncio
import dataclasses
import email
import email.policy
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from openai_dify_proxy.demo.apps import DemoApp, check_inputs, find_app, question_in
from openai_dify_proxy.demo.dialects import CHAT_MODES, Dialect
from openai_dify_proxy.demo.graphs import refuse_run
from openai_dify_proxy.demo.log import LoggedRequest
from openai_dify_proxy.demo.produced import PICTURE, PRESET
from openai_dify_proxy.demo.replies import (
    EventStream,
    RefusedError,
    generated_reply,
    json_reply,
    refusal,
    version_headers,
)
from openai_dify_proxy.demo.runs import PING, Conversation, Mark, Message, Run, new_id
from openai_dify_proxy.demo.state import Ask, DemoState, Upload, checked_files

NOT_FOUND_PAGE = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. "
    "If you entered the URL manually please check your spelling and try again.</p>\n"
)
BAD_GATEWAY_PAGE = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>502 Bad Gateway</body>\r\n</html>\r\n"
)

REFUSALS: dict[str, RefusedError] = {
    "limit": RefusedError(
        400,
        "invalid_param",
        "Too many requests. Please try again later. "
        "The current maximum concurrent requests allowed for 11111111-1111-4111-8111-111111111111 is 1.",
    ),
    "provider": RefusedError(400, "provider_not_initialize", "Model demo-model credentials is not initialized."),
    "quota": RefusedError(
        400,
        "provider_quota_exceeded",
        "Your quota for Dify Hosted Model Provider has been exhausted. "
        "Please go to Settings -> Model Provider to complete your own provider credentials.",
    ),
    "disabled": RefusedError(403, "forbidden", "The app's API service has been disabled."),
    "crash": RefusedError(500, "unknown", "Internal Server Error"),
}
"""`ERROR:` words that are answered before any stream, whatever the app."""


@dataclass(frozen=True)
class Call:
    """One request whose key opens an app."""

    request: Request
    state: DemoState
    app: DemoApp
    dialect: Dialect
    body: Any

    @property
    def user(self) -> str:
        """The `user` of the body or the query; raises RefusedError where it is missing."""
        if isinstance(self.body, list):
            raise REFUSALS["crash"]
        source = self.body if isinstance(self.body, dict) else self.request.query_params
        user = source.get("user")
        if user is None or user == "":
            raise RefusedError(400, "invalid_param", "Arg user must be provided.")
        if len(str(user)) > 255:
            raise REFUSALS["crash"]
        return str(user)

    def reply(self, body: Any, status: int = 200) -> Response:
        return json_reply(body, self.dialect, status)


Handler = Callable[[Call], Awaitable[Response]]


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A route that logs the request, opens the app, and answers refusals as Dify writes them."""

    async def handle(request: Request) -> Response:
        state: DemoState = request.app.state.demo
        dialect: Dialect = request.app.state.dialect
        try:
            raw = await request.body()
        except ClientDisconnect:
            return Response(status_code=499)
        body, malformed = _read_json(raw, request.headers.get("content-type", ""))
        key = request.headers.get("authorization", "").partition(" ")[2]
        opened = find_app(key, dialect)
        dialect = opened[1] if opened else dialect
        _log(state, request, key, opened, body)
        try:
            if opened is None:
                raise _unauthorized(request.headers.get("authorization"))
            if malformed:
                raise RefusedError(
                    400, "bad_request", "The browser (or proxy) sent a request that this server could not understand."
                )
            return await handler(Call(request, state, opened[0], dialect, body))
        except RefusedError as error:
            return refusal(error, dialect)

    return handle


async def welcome(request: Request) -> Response:
    dialect: Dialect = request.app.state.dialect
    return json_reply(
        {"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": dialect.server_version}, dialect
    )


async def picture(request: Request) -> Response:
    """A produced file; its link needs a signature."""
    if "sign" not in request.query_params:
        return HTMLResponse(NOT_FOUND_PAGE, 404)
    return Response(PICTURE, media_type="image/png")


async def chat_messages(call: Call) -> Response:
    user = call.user
    _require_chat(call)
    body = _payload(call, "ChatRequestPayload", query=True)
    conversation_id = body.get("conversation_id") or ""
    if conversation_id and not _is_uuid(conversation_id):
        raise _invalid("ChatRequestPayload", "conversation_id", "Value error, conversation_id must be a valid UUID")
    mode = body.get("response_mode")
    streaming = mode == "streaming" or (mode is None and call.app.mode == "agent")
    if not streaming and call.app.mode == "agent-chat":
        raise RefusedError(400, "invalid_param", "Agent Chat App does not support blocking mode")
    if not streaming and call.app.mode == "agent":
        raise RefusedError(400, "bad_request", "Agent App only supports streaming response mode.")
    return await _generate(
        call, user, body, body["query"].replace("\0", ""), streaming=streaming, conversation_id=conversation_id
    )


async def completion_messages(call: Call) -> Response:
    user = call.user
    if call.app.mode != "completion":
        raise RefusedError(400, "app_unavailable", "App unavailable, please check your app configurations.")
    body = _payload(call, "CompletionRequestPayload", query=False)
    question = question_in(call.app, body["inputs"]) or str(body.get("query") or "")
    return await _generate(call, user, body, question, streaming=body.get("response_mode") == "streaming")


async def workflows_run(call: Call) -> Response:
    user = call.user
    _require_workflow(call)
    body = _payload(call, "WorkflowRunPayload", query=False)
    question = question_in(call.app, body["inputs"])
    return await _generate(call, user, body, question, streaming=body.get("response_mode") == "streaming")


async def stop_chat(call: Call) -> Response:
    user = call.user
    _require_chat(call)
    return _stop(call, user)


async def stop_completion(call: Call) -> Response:
    user = call.user
    if call.app.mode != "completion":
        raise RefusedError(400, "app_unavailable", "App unavailable, please check your app configurations.")
    return _stop(call, user)


async def stop_workflow(call: Call) -> Response:
    user = call.user
    _require_workflow(call)
    return _stop(call, user)


async def info(call: Call) -> Response:
    body: dict[str, Any] = {"name": call.app.name, "description": call.app.description, "tags": []}
    if call.dialect.tells_mode:
        body |= {"mode": call.app.mode, "author_name": "demo"}
    return call.reply(body)


async def parameters(call: Call) -> Response:
    chats = call.app.mode in CHAT_MODES
    methods = ["remote_url", "local_file"]
    return call.reply(
        {
            "opening_statement": "Hello, this is a demo. Ask me anything." if chats else "",
            "suggested_questions": ["What can you do?"] if chats else [],
            "suggested_questions_after_answer": {"enabled": False},
            "speech_to_text": {"enabled": False},
            "text_to_speech": {"enabled": False, "language": "", "voice": ""},
            "retriever_resource": {"enabled": True},
            "annotation_reply": {"enabled": False},
            "more_like_this": {"enabled": False},
            "user_input_form": [field.form_item(call.app.mode) for field in call.app.form],
            "sensitive_word_avoidance": {"configs": [], "enabled": False, "type": ""},
            "file_upload": {
                "enabled": True,
                "allowed_file_extensions": [],
                "allowed_file_types": ["image", "document"],
                "allowed_file_upload_methods": methods,
                "image": {"detail": "high", "enabled": True, "number_limits": 3, "transfer_methods": methods},
                "number_limits": 3,
            },
            "system_parameters": {
                "image_file_size_limit": 10,
                "video_file_size_limit": 100,
                "audio_file_size_limit": 50,
                "file_size_limit": 15,
                "workflow_file_upload_limit": 10,
            },
        }
    )


async def meta(call: Call) -> Response:
    return call.reply({"tool_icons": {}})


async def site(call: Call) -> Response:
    return call.reply(
        {
            "title": call.app.name,
            "chat_color_theme": None,
            "chat_color_theme_inverted": False,
            "icon_type": "emoji",
            "icon": "🤖",
            "icon_background": "#FFEAD5",
            "icon_url": None,
            "description": call.app.description,
            "copyright": None,
            "privacy_policy": None,
            **({"input_placeholder": None} if call.dialect.empty_lists else {}),
            "custom_disclaimer": "",
            "default_language": "en-US",
            "show_workflow_steps": True,
            "use_icon_as_answer_icon": False,
        }
    )


async def list_conversations(call: Call) -> Response:
    _require_chat(call)
    user = call.request.query_params.get("user") or "DEFAULT-USER"
    owned = [
        conversation
        for conversation in reversed(call.state.conversations.values())
        if (conversation.app, conversation.user) == (call.app.name, user)
    ]
    return _page(call, [_conversation_row(conversation) for conversation in owned])


async def list_messages(call: Call) -> Response:
    _require_chat(call)
    conversation = call.state.conversation(call.request.query_params.get("conversation_id", ""), call.app, call.user)
    if conversation is None:
        raise _no_conversation(call)
    rows = [_message_row(conversation, message, call.dialect) for message in conversation.messages]
    return _page(call, rows, newest=True)


async def delete_conversation(call: Call) -> Response:
    _require_chat(call)
    conversation = call.state.conversation(call.request.path_params["conversation_id"], call.app, call.user)
    if conversation is None:
        raise _no_conversation(call)
    del call.state.conversations[conversation.id]
    if not call.dialect.tells_mode:
        return call.reply({"result": "success"})
    return Response(status_code=204, headers=version_headers(call.dialect))


async def upload_file(call: Call) -> Response:
    """Takes the first part named `file`; `user` may be missing."""
    file, fields = _multipart(await call.request.body(), call.request.headers.get("content-type", ""))
    if file is None:
        raise RefusedError(400, "no_file_uploaded", "Please upload your file.")
    name, kind, content = file
    if "/" in name:
        raise RefusedError(400, "invalid_param", "Filename contains invalid characters")
    if len(content) > (10 if kind.startswith("image/") else 15) * 1024 * 1024:
        raise RefusedError(413, "file_too_large", "File size exceeded. {message}")
    upload = Upload(new_id(), call.app.name, fields.get("user", ""), name)
    call.state.keep_upload(upload)
    now = int(time.time())
    body: dict[str, Any] = {
        "id": upload.id,
        "name": name,
        "size": len(content),
        "extension": name.rpartition(".")[2] if "." in name else "",
        "mime_type": kind,
        "created_by": new_id(),
        "created_at": now,
        "preview_url": None,
        "source_url": f"{_base_url(call.request)}/files/{upload.id}/file-preview?timestamp={now}&nonce=demo&sign=demo",
    }
    if call.dialect.uploads_bound:
        body |= dict.fromkeys(("reference", "original_url", "user_id", "conversation_id", "file_key"))
        body["tenant_id"] = "44444444-4444-4444-8444-444444444444"
    return call.reply(body, 201)


ROUTES: list[Route] = [
    Route("/v1/", welcome),
    Route("/v1/chat-messages", endpoint(chat_messages), methods=["POST"]),
    Route("/v1/completion-messages", endpoint(completion_messages), methods=["POST"]),
    Route("/v1/workflows/run", endpoint(workflows_run), methods=["POST"]),
    Route("/v1/chat-messages/{task_id}/stop", endpoint(stop_chat), methods=["POST"]),
    Route("/v1/completion-messages/{task_id}/stop", endpoint(stop_completion), methods=["POST"]),
    Route("/v1/workflows/tasks/{task_id}/stop", endpoint(stop_workflow), methods=["POST"]),
    Route("/v1/info", endpoint(info)),
    Route("/v1/parameters", endpoint(parameters)),
    Route("/v1/meta", endpoint(meta)),
    Route("/v1/site", endpoint(site)),
    Route("/v1/conversations", endpoint(list_conversations)),
    Route("/v1/conversations/{conversation_id}", endpoint(delete_conversation), methods=["DELETE"]),
    Route("/v1/messages", endpoint(list_messages)),
    Route("/v1/files/upload", endpoint(upload_file), methods=["POST"]),
    Route("/files/tools/{name}", picture),
]


async def _generate(
    call: Call, user: str, body: dict[str, Any], question: str, *, streaming: bool, conversation_id: str = ""
) -> Response:
    app, dialect, state = call.app, call.dialect, call.state
    graph = app.mode in ("advanced-chat", "workflow")
    conversation = state.conversation(conversation_id, app, user) if conversation_id else None
    lost = bool(conversation_id) and conversation is None
    if lost and not (graph and streaming and dialect.graph_refusal == "silence"):
        raise _no_conversation(call)
    problem = check_inputs(app, body["inputs"])
    files: list[dict[str, Any]] = []
    try:
        files = checked_files(state, user, app, dialect, body.get("files"))
    except RefusedError as error:
        problem = problem or error.message
    if problem and not (graph and streaming and dialect.graph_refusal != "http"):
        raise RefusedError(400, "invalid_param", problem)
    ask = Ask(app, dialect, user, question, body["inputs"], files, conversation_id, streaming, _base_url(call.request))
    if lost or problem:
        return _refused_stream(state, ask, problem)
    run = state.prepare(ask, conversation)
    if run.script.error in REFUSALS:
        raise REFUSALS[run.script.error]
    if run.script.error == "nginx":
        return HTMLResponse(BAD_GATEWAY_PAGE, 502)
    if conversation is None and app.mode in CHAT_MODES and body.get("auto_generate_name", True):
        await asyncio.sleep(dialect.naming_delay * state.timing.naming)
    state.start(run)
    return EventStream(run) if streaming else await _blocking(run)


def _refused_stream(state: DemoState, ask: Ask, problem: str | None) -> Response:
    """A stream for a request that fails before its graph: a failed run, or a ping and then silence."""
    run = state.prepare(ask, None, stored=False)
    if ask.dialect.graph_refusal == "silence":
        return _silent_stream(run)
    run.emit(PING)
    refuse_run(run, problem or "")
    run.frames.put_nowait(Mark.END)
    return EventStream(run)


def _silent_stream(run: Run) -> Response:
    """One ping, then nothing, whatever the run does."""
    silent = dataclasses.replace(run, frames=asyncio.Queue(), pings=False)
    silent.emit(PING)
    asyncio.get_running_loop().call_later(run.timing.hang, silent.frames.put_nowait, Mark.END)
    return EventStream(silent)


async def _blocking(run: Run) -> Response:
    """The whole answer at once; a run that fails is an HTTP error, unless it is a workflow's."""
    if run.app.mode == "advanced-chat" and run.dialect.graph_refusal == "silence":
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
        raise RefusedError(status, code, error["message"])
    finished = by_name.get("workflow_finished", {}).get("data", {})
    if finished.get("status") == "failed" and "message_end" not in by_name:
        raise RefusedError(400, "invalid_param", f"Run failed: {finished['error']}")
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
        "answer": PRESET if "message_replace" in by_name else run.said,
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


def _page(call: Call, rows: list[dict[str, Any]], *, newest: bool = False) -> Response:
    limit = int(call.request.query_params.get("limit", "20"))
    page = rows[-limit:] if newest else rows[:limit]
    return call.reply({"limit": limit, "has_more": len(rows) > limit, "data": page})


def _conversation_row(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "name": conversation.name,
        "inputs": conversation.inputs,
        "status": "normal",
        "introduction": "",
        "created_at": conversation.created_at,
        "updated_at": conversation.messages[-1].created_at if conversation.messages else conversation.created_at,
    }


def _message_row(conversation: Conversation, message: Message, dialect: Dialect) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": message.id,
        "conversation_id": conversation.id,
        "parent_message_id": "00000000-0000-0000-0000-000000000000",
        "inputs": message.inputs,
        "query": message.query,
        "answer": message.answer,
        "message_files": [],
        "feedback": None,
        "retriever_resources": [],
        "created_at": message.created_at,
        "agent_thoughts": [],
        "status": message.status,
        "error": message.error,
    }
    if dialect.empty_lists:
        usage = message.usage.fields()
        row |= {
            "message_tokens": usage["prompt_tokens"],
            "answer_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "total_price": usage["total_price"],
            "currency": "USD",
            "provider_response_latency": usage["latency"],
            "extra_contents": [],
        }
    return row


def _payload(call: Call, model: str, *, query: bool) -> dict[str, Any]:
    body = call.body
    if not isinstance(body, dict):
        raise REFUSALS["crash"]
    if query:
        if "query" not in body:
            raise _invalid(model, "query", "Field required")
        if not isinstance(body["query"], str):
            raise _invalid(model, "query", "Input should be a valid string")
    if "inputs" not in body:
        raise _invalid(model, "inputs", "Field required")
    if not isinstance(body["inputs"], dict):
        raise _invalid(model, "inputs", "Input should be a valid dictionary")
    if body.get("response_mode") not in (None, "blocking", "streaming"):
        raise _invalid(model, "response_mode", "Input should be 'blocking' or 'streaming'")
    if query and body["query"] == "":
        raise RefusedError(400, "invalid_param", "query is required")
    return body


def _invalid(model: str, field: str, problem: str) -> RefusedError:
    kind = "missing" if problem == "Field required" else "value_error"
    return RefusedError(
        400,
        "invalid_param",
        f"1 validation error for {model}\n{field}\n  {problem} [type={kind}, input_value={{...}}, input_type=dict]\n"
        f"    For further information visit https://errors.pydantic.dev/2.12/v/{kind}",
    )


def _require_chat(call: Call) -> None:
    if call.app.mode not in CHAT_MODES:
        raise RefusedError(400, "not_chat_app", "Please check if your app mode matches the right API route.")


def _require_workflow(call: Call) -> None:
    if call.app.mode != "workflow":
        raise RefusedError(400, "not_workflow_app", "Please check if your app mode matches the right API route.")


def _no_conversation(call: Call) -> RefusedError:
    path = call.request.url.path
    return RefusedError(
        404,
        "not_found",
        f"Conversation Not Exists. You have requested this URI [{path}] but did you mean {path} ?",
    )


def _unauthorized(authorization: str | None) -> RefusedError:
    if not authorization or " " not in authorization:
        return RefusedError(401, "unauthorized", "Authorization header must be provided and start with 'Bearer'")
    if authorization.partition(" ")[0].lower() != "bearer":
        return RefusedError(401, "unauthorized", "Authorization scheme must be 'Bearer'")
    return RefusedError(401, "unauthorized", "Access token is invalid")


def _log(state: DemoState, request: Request, key: str, opened: tuple[DemoApp, Dialect] | None, body: Any) -> None:
    entry = LoggedRequest(
        method=request.method,
        path=request.url.path,
        query=dict(request.query_params),
        headers={name: value for name, value in request.headers.items() if name != "authorization"},
        key=key,
        app=opened[0].name if opened else None,
        dialect=opened[1].name if opened else None,
        body=body,
        at=time.monotonic(),
    )
    state.log.change(lambda: state.log.requests.append(entry))


def _read_json(raw: bytes, content_type: str) -> tuple[Any, bool]:
    """The JSON body and whether it is malformed; lone surrogates are."""
    if not raw or not content_type.startswith("application/json"):
        return None, False
    try:
        return msgspec.json.decode(raw), False
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, True


def _multipart(raw: bytes, content_type: str) -> tuple[tuple[str, str, bytes] | None, dict[str, str]]:
    """Name, type and content of the first part called `file`, and the plain fields."""
    if not content_type.startswith("multipart/form-data"):
        return None, {}
    parsed = email.message_from_bytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + raw, policy=email.policy.HTTP
    )
    file: tuple[str, str, bytes] | None = None
    fields: dict[str, str] = {}
    for part in parsed.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            continue
        if part.get_filename() is None:
            fields[str(name)] = content.decode("utf-8", "replace")
        elif name == "file" and file is None:
            file = (str(part.get_filename()), part.get_content_type(), content)
    return file, fields


def _base_url(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _is_uuid(text: object) -> bool:
    try:
        uuid.UUID(str(text))
    except ValueError:
        return False
    return True
