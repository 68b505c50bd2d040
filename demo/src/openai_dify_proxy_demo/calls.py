"""Requests with an app's key: parsing, logging, and Dify's errors for invalid ones."""

from __future__ import annotations

import email
import email.policy
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from openai_dify_proxy_demo.apps import DemoApp, find_app
from openai_dify_proxy_demo.common import read_json
from openai_dify_proxy_demo.dialects import CHAT_MODES, Dialect
from openai_dify_proxy_demo.log import LoggedRequest
from openai_dify_proxy_demo.replies import ApiError, error_response, json_reply
from openai_dify_proxy_demo.state import DemoState

SCRIPTED_ERRORS: dict[str, ApiError] = {
    "limit": ApiError(
        400,
        "invalid_param",
        "Too many requests. Please try again later. "
        "The current maximum concurrent requests allowed for 11111111-1111-4111-8111-111111111111 is 1.",
    ),
    "provider": ApiError(400, "provider_not_initialize", "Model demo-model credentials is not initialized."),
    "quota": ApiError(
        400,
        "provider_quota_exceeded",
        "Your quota for Dify Hosted Model Provider has been exhausted. "
        "Please go to Settings -> Model Provider to complete your own provider credentials.",
    ),
    "disabled": ApiError(403, "forbidden", "The app's API service has been disabled."),
    "crash": ApiError(500, "unknown", "Internal Server Error"),
}
"""The errors of the `ERROR:` keywords that fail before any stream, in every app."""


@dataclass(frozen=True)
class Call:
    """One request, and the app of its key."""

    request: Request
    state: DemoState
    app: DemoApp
    dialect: Dialect
    body: Any

    @property
    def user(self) -> str:
        """Return `user` from the body or the query. Raise ApiError if it is missing."""
        if isinstance(self.body, list):
            raise SCRIPTED_ERRORS["crash"]
        source = self.body if isinstance(self.body, dict) else self.request.query_params
        user = source.get("user")
        if user is None or user == "":
            raise ApiError(400, "invalid_param", "Arg user must be provided.")
        if len(str(user)) > 255:
            raise SCRIPTED_ERRORS["crash"]
        return str(user)

    def reply(self, body: Any, status: int = 200) -> Response:
        return json_reply(body, self.dialect, status)


Handler = Callable[[Call], Awaitable[Response]]


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: log the request, find the app of its key, and turn ApiError into Dify's error body."""

    async def handle(request: Request) -> Response:
        state: DemoState = request.app.state.demo
        dialect: Dialect = request.app.state.dialect
        try:
            raw = await request.body()
        except ClientDisconnect:
            return Response(status_code=499)
        body, malformed = read_json(raw, request.headers.get("content-type", ""))
        key = request.headers.get("authorization", "").partition(" ")[2]
        match = find_app(key, dialect)
        dialect = match[1] if match else dialect
        _log(state, request, key, match, body)
        try:
            if match is None:
                raise _unauthorized(request.headers.get("authorization"))
            if malformed:
                raise ApiError(
                    400, "bad_request", "The browser (or proxy) sent a request that this server could not understand."
                )
            return await handler(Call(request, state, match[0], dialect, body))
        except ApiError as error:
            return error_response(error, dialect)

    return handle


def payload(call: Call, model: str, *, query: bool) -> dict[str, Any]:
    body = call.body
    if not isinstance(body, dict):
        raise SCRIPTED_ERRORS["crash"]
    if query:
        if "query" not in body:
            raise validation_error(model, "query", "Field required")
        if not isinstance(body["query"], str):
            raise validation_error(model, "query", "Input should be a valid string")
    if "inputs" not in body:
        raise validation_error(model, "inputs", "Field required")
    if not isinstance(body["inputs"], dict):
        raise validation_error(model, "inputs", "Input should be a valid dictionary")
    if body.get("response_mode") not in (None, "blocking", "streaming"):
        raise validation_error(model, "response_mode", "Input should be 'blocking' or 'streaming'")
    if query and body["query"] == "":
        raise ApiError(400, "invalid_param", "query is required")
    return body


def require_chat(call: Call) -> None:
    if call.app.mode not in CHAT_MODES:
        raise ApiError(400, "not_chat_app", "Please check if your app mode matches the right API route.")


def require_completion(call: Call) -> None:
    if call.app.mode != "completion":
        raise ApiError(400, "app_unavailable", "App unavailable, please check your app configurations.")


def require_workflow(call: Call) -> None:
    if call.app.mode != "workflow":
        raise ApiError(400, "not_workflow_app", "Please check if your app mode matches the right API route.")


def validation_error(model: str, field: str, problem: str, text: str = "") -> ApiError:
    """Return Dify's error for an invalid field; `text` is the value of a text field."""
    kind = "missing" if problem == "Field required" else "value_error"
    value = f"input_value={text!r}, input_type=str" if text else "input_value={...}, input_type=dict"
    return ApiError(
        400,
        "invalid_param",
        f"1 validation error for {model}\n{field}\n  {problem} [type={kind}, {value}]\n"
        f"    For further information visit https://errors.pydantic.dev/2.12/v/{kind}",
    )


SIMILAR_PATHS = {
    "/v1/chat-messages": "/v1/chat-messages or /api/chat-messages or /v1/chat-messages/<string:task_id>/stop",
    "/v1/messages": "/v1/messages or /v1/chat-messages or /api/messages",
}
"""The suggestions that Dify's web framework adds to a 404 for these paths."""


def conversation_not_found(call: Call) -> ApiError:
    path = call.request.url.path
    suggestion = SIMILAR_PATHS.get(path, path)
    return ApiError(
        404,
        "not_found",
        f"Conversation Not Exists. You have requested this URI [{path}] but did you mean {suggestion} ?",
    )


def read_multipart(raw: bytes, content_type: str) -> tuple[tuple[str, str, bytes] | None, dict[str, str]]:
    """Return name, type and content of the first part named `file`, and the text fields."""
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


def base_url(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def is_uuid(text: object) -> bool:
    try:
        uuid.UUID(str(text))
    except ValueError:
        return False
    return True


def _unauthorized(authorization: str | None) -> ApiError:
    if not authorization or " " not in authorization:
        return ApiError(401, "unauthorized", "Authorization header must be provided and start with 'Bearer'")
    if authorization.partition(" ")[0].lower() != "bearer":
        return ApiError(401, "unauthorized", "Authorization scheme must be 'Bearer'")
    return ApiError(401, "unauthorized", "Access token is invalid")


def _log(state: DemoState, request: Request, key: str, match: tuple[DemoApp, Dialect] | None, body: Any) -> None:
    entry = LoggedRequest(
        method=request.method,
        path=request.url.path,
        query=dict(request.query_params),
        headers={name: value for name, value in request.headers.items() if name != "authorization"},
        key=key,
        app=match[0].name if match else None,
        dialect=match[1].name if match else None,
        body=body,
        at=time.monotonic(),
    )
    state.log.change(lambda: state.log.requests.append(entry))
