"""The routes of Dify's service API that a proxy uses."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from openai_dify_proxy_demo.audio import audio_switches, audio_to_text, text_to_audio
from openai_dify_proxy_demo.calls import Call, base_url, endpoint, read_multipart
from openai_dify_proxy_demo.conversations import (
    delete_conversation,
    list_conversations,
    list_messages,
    list_variables,
    rename_conversation,
)
from openai_dify_proxy_demo.dialects import CHAT_MODES, Dialect
from openai_dify_proxy_demo.form_routes import show_form, show_run, submit_form
from openai_dify_proxy_demo.generation import (
    chat_messages,
    completion_messages,
    stop_chat,
    stop_completion,
    stop_workflow,
    workflows_run,
)
from openai_dify_proxy_demo.guide import OPENING, SUGGESTIONS
from openai_dify_proxy_demo.input_files import Upload, describe
from openai_dify_proxy_demo.message_routes import list_suggestions, rate_message, suggests
from openai_dify_proxy_demo.replies import ApiError, error_response, json_reply, version_headers
from openai_dify_proxy_demo.run_events import run_events
from openai_dify_proxy_demo.runs import new_id
from openai_dify_proxy_demo.state import DemoState

NOT_FOUND_PAGE = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. "
    "If you entered the URL manually please check your spelling and try again.</p>\n"
)


async def welcome(request: Request) -> Response:
    dialect: Dialect = request.app.state.dialect
    return json_reply(
        {"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": dialect.server_version}, dialect
    )


async def produced_file(request: Request) -> Response:
    """Serve a file that a run produced, for five minutes after its link was signed. The extension is ignored."""
    state: DemoState = request.app.state.demo
    dialect: Dialect = request.app.state.dialect
    file_id = str(request.path_params["name"]).partition(".")[0]
    if not state.files.verifies(file_id, request.query_params):
        return error_response(ApiError(403, "forbidden", "Invalid request."), dialect)
    made = state.files.find(file_id)
    if made is None:
        return error_response(ApiError(404, "not_found", "file is not found"), dialect)
    headers = {**version_headers(dialect), "Content-Length": str(made.size)}
    return StreamingResponse(made.chunks(), 200, headers, made.media_type)


async def info(call: Call) -> Response:
    body: dict[str, Any] = {"name": call.app.name, "description": call.app.description, "tags": []}
    if call.dialect.info_has_mode:
        body |= {"mode": call.app.mode, "author_name": "demo"}
    return call.reply(body)


async def parameters(call: Call) -> Response:
    chats = call.app.mode in CHAT_MODES
    methods = ["local_file"] if call.app.uploads_only else ["remote_url", "local_file"]
    return call.reply(
        {
            "opening_statement": OPENING if chats else "",
            "suggested_questions": list(SUGGESTIONS) if chats else [],
            "suggested_questions_after_answer": {"enabled": suggests(call.app.mode)},
            **audio_switches(call.app.mode),
            "retriever_resource": {"enabled": True},
            "annotation_reply": {"enabled": False},
            "more_like_this": {"enabled": False},
            "user_input_form": [field.form_item(call.app.mode) for field in call.app.form],
            "sensitive_word_avoidance": {"configs": [], "enabled": False, "type": ""},
            "file_upload": {
                "enabled": call.app.takes_files,
                "allowed_file_extensions": [],
                "allowed_file_types": list(call.app.file_types),
                "allowed_file_upload_methods": methods,
                "image": {
                    "detail": "high",
                    "enabled": call.app.takes_files,
                    "number_limits": call.app.max_files,
                    "transfer_methods": methods,
                },
                "number_limits": call.app.max_files,
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


async def upload_file(call: Call) -> Response:
    """Store the first part named `file`. `user` is optional."""
    file, fields = read_multipart(await call.request.body(), call.request.headers.get("content-type", ""))
    if file is None:
        raise ApiError(400, "no_file_uploaded", "Please upload your file.")
    name, kind, content = file
    if "/" in name:
        raise ApiError(400, "invalid_param", "Filename contains invalid characters")
    if len(content) > (10 if kind.startswith("image/") else 15) * 1024 * 1024:
        raise ApiError(413, "file_too_large", "File size exceeded. {message}")
    upload = Upload(new_id(), call.app.name, fields.get("user", ""), name, describe(kind, content))
    call.state.store_upload(upload)
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
        "source_url": f"{base_url(call.request)}/files/{upload.id}/file-preview?timestamp={now}&nonce=demo&sign=demo",
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
    Route("/v1/workflows/run/{run_id}", endpoint(show_run)),
    Route("/v1/workflows/tasks/{task_id}/stop", endpoint(stop_workflow), methods=["POST"]),
    Route("/v1/workflow/{run_id}/events", endpoint(run_events)),
    Route("/v1/form/human_input/{token}", endpoint(show_form), methods=["GET"]),
    Route("/v1/form/human_input/{token}", endpoint(submit_form), methods=["POST"]),
    Route("/v1/info", endpoint(info)),
    Route("/v1/parameters", endpoint(parameters)),
    Route("/v1/meta", endpoint(meta)),
    Route("/v1/site", endpoint(site)),
    Route("/v1/conversations", endpoint(list_conversations)),
    Route("/v1/conversations/{conversation_id}", endpoint(delete_conversation), methods=["DELETE"]),
    Route("/v1/conversations/{conversation_id}/name", endpoint(rename_conversation), methods=["POST"]),
    Route("/v1/conversations/{conversation_id}/variables", endpoint(list_variables)),
    Route("/v1/messages", endpoint(list_messages)),
    Route("/v1/messages/{message_id:uuid}/suggested", endpoint(list_suggestions)),
    Route("/v1/messages/{message_id:uuid}/feedbacks", endpoint(rate_message), methods=["POST"]),
    Route("/v1/audio-to-text", endpoint(audio_to_text), methods=["POST"]),
    Route("/v1/text-to-audio", endpoint(text_to_audio), methods=["POST"]),
    Route("/v1/files/upload", endpoint(upload_file), methods=["POST"]),
    Route("/files/tools/{name}", produced_file),
]
