"""Dify's failures, row by row as they were measured, and what a client is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.translate.dify.errors import (
    CONCURRENCY_RETRY_AFTER,
    clean,
    translate_error,
    translate_failure,
    translate_rejection,
)


@dataclass(frozen=True)
class Told:
    status: int
    type: str
    code: str | None
    param: str | None = None
    started: bool = False


def told(error: ProxyError) -> Told:
    return Told(error.status, error.type, error.code, error.param, error.started)


BAD = "invalid_request_error"
CONCURRENCY = (
    "Too many requests. Please try again later. The current maximum concurrent requests allowed for "
    "0f3c9f5e-1111-4222-8333-444455556666 is 1."
)
NOT_EXISTS = (
    "Conversation Not Exists. You have requested this URI [/v1/chat-messages] but did you mean /v1/chat-messages "
    "or /v1/chat-messages/<string:task_id>/stop ?"
)
PYDANTIC = (
    "1 validation error for ChatRequestPayload\nquery\n  Field required [type=missing, input_value={'inputs': {}}"
)

# Before the stream: status, code and message of Dify's answer.
REFUSALS: dict[str, tuple[int, str | None, str, Told]] = {
    "API disabled": (
        403,
        "forbidden",
        "The app's API service has been disabled.",
        Told(403, "permission_error", "forbidden"),
    ),
    "chat asked of a completion app": (
        400,
        "not_chat_app",
        "Please check if your app mode matches the right API route.",
        Told(503, "api_error", "not_chat_app"),
    ),
    "completion asked of a chat app": (
        400,
        "app_unavailable",
        "App unavailable, please check your app configurations.",
        Told(503, "api_error", "app_unavailable"),
    ),
    "completion asked of another": (400, "not_completion_app", "", Told(503, "api_error", "not_completion_app")),
    "workflow asked of a chat app": (400, "not_workflow_app", "", Told(503, "api_error", "not_workflow_app")),
    "agent that is not published": (400, "agent_not_published", "", Told(503, "api_error", "agent_not_published")),
    "query missing": (400, "invalid_param", PYDANTIC, Told(400, BAD, "invalid_param")),
    "query empty": (400, "invalid_param", "query is required", Told(400, BAD, "invalid_param")),
    "user missing": (400, "invalid_param", "Arg user must be provided.", Told(400, BAD, "invalid_param")),
    "required input missing": (
        400,
        "invalid_param",
        "topic is required in input form",
        Told(400, BAD, "invalid_param", "inputs.topic"),
    ),
    "input too long": (
        400,
        "invalid_param",
        "topic in input form must be less than 10 characters",
        Told(400, BAD, "invalid_param", "inputs.topic"),
    ),
    "input not an option": (
        400,
        "invalid_param",
        "tone in input form must be one of the following: ['a', 'b']",
        Told(400, BAD, "invalid_param", "inputs.tone"),
    ),
    "input not a number": (
        400,
        "invalid_param",
        "count in input form must be a valid number",
        Told(400, BAD, "invalid_param", "inputs.count"),
    ),
    "input of the wrong type": (
        400,
        "invalid_param",
        "(type 'text-input') name in input form must be a string",
        Told(400, BAD, "invalid_param", "inputs.name"),
    ),
    "JSON input that is none (1.16)": (
        400,
        "invalid_param",
        "cfg in input form must be a dict",
        Told(400, BAD, "invalid_param", "inputs.cfg"),
    ),
    "malformed JSON": (
        400,
        "bad_request",
        "Failed to decode JSON object: Expecting value: line 1 column 1 (char 0)",
        Told(400, BAD, "bad_request"),
    ),
    "wrong content type": (
        415,
        "unsupported_media_type",
        "Did not attempt to load JSON data because the request Content-Type was not 'application/json'.",
        Told(415, BAD, "unsupported_media_type"),
    ),
    "body that is an array": (500, "unknown", "Internal Server Error", Told(502, "api_error", "unknown")),
    "conversation unknown": (404, "not_found", NOT_EXISTS, Told(404, BAD, "conversation_not_found", "conversation_id")),
    "workflow unknown": (404, "not_found", "Workflow not found", Told(404, BAD, "not_found")),
    "workflow id bad": (400, "bad_request", "Invalid workflow_id format", Told(400, BAD, "bad_request")),
    "concurrency limit": (400, "invalid_param", CONCURRENCY, Told(429, "rate_limit_error", "rate_limit_exceeded")),
    "concurrency limit as documented": (
        429,
        "too_many_requests",
        CONCURRENCY,
        Told(429, "rate_limit_error", "rate_limit_exceeded"),
    ),
    "runs that Dify's cloud sells are used up": (
        429,
        "rate_limit_error",
        "Rate limit exceeded",
        Told(429, "insufficient_quota", "insufficient_quota"),
    ),
    "some limit": (429, "slow_down", "Slow down.", Told(429, "rate_limit_error", "slow_down")),
    "provider without credentials": (
        400,
        "provider_not_initialize",
        "Model credentials is not initialized.",
        Told(503, "api_error", "provider_not_initialize"),
    ),
    "model not supported": (
        400,
        "model_currently_not_support",
        "",
        Told(503, "api_error", "model_currently_not_support"),
    ),
    "provider gone": (
        400,
        "invalid_param",
        "Provider langgenius/openai/openai does not exist.",
        Told(503, "api_error", "invalid_param"),
    ),
    "model gone": (400, "invalid_param", "Model gpt-9 not exist.", Told(503, "api_error", "invalid_param")),
    "provider quota": (
        400,
        "provider_quota_exceeded",
        "Your quota for Dify Hosted Model Provider has been exhausted.",
        Told(429, "insufficient_quota", "insufficient_quota"),
    ),
    "LLM failed, blocking chatflow": (
        400,
        "invalid_param",
        "Run failed: [scripted] Server Unavailable Error, boom",
        Told(502, "api_error", "invalid_param", started=True),
    ),
    "upload of another user (1.16)": (400, "invalid_param", "Invalid upload file", Told(400, BAD, "invalid_param")),
    "file too large": (
        413,
        "file_too_large",
        "File size exceeded. {message}",
        Told(413, BAD, "file_too_large"),
    ),
    "audio of a wrong type": (415, "unsupported_audio_type", "", Told(415, BAD, "unsupported_audio_type")),
    "wrong method": (
        405,
        "method_not_allowed",
        "The method is not allowed for the requested URL.",
        Told(400, BAD, "method_not_allowed"),
    ),
    "blocking asked of an agent (1.16)": (
        400,
        "bad_request",
        "Agent App only supports streaming response mode.",
        Told(400, BAD, "bad_request"),
    ),
}


@pytest.mark.parametrize("own_key", [True, False])
@pytest.mark.parametrize(("status", "code", "message", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(status: int, code: str | None, message: str, expected: Told, own_key: bool) -> None:
    body = json.encode({"code": code, "message": message, "status": status})
    assert told(translate_rejection(status, "application/json", body, own_key=own_key)) == expected


# error events of a stream that began: code, status, message.
EVENTS: dict[str, tuple[str | None, int, str, Told]] = {
    "LLM failed": (
        "completion_request_error",
        400,
        "[scripted] Bad Request Error, boom",
        Told(502, "api_error", "completion_request_error", started=True),
    ),
    "LLM unreachable": (
        "completion_request_error",
        400,
        "[scripted] Connection Error, connection refused",
        Told(502, "api_error", "completion_request_error", started=True),
    ),
    "provider limits, up to 1.13": (
        "completion_request_error",
        400,
        "[openai] Rate Limit Error, Rate limit reached for gpt-4o",
        Told(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
    "provider limits, 1.16": (
        "rate_limit_error",
        429,
        "[openai] Rate Limit Error, slow down",
        Told(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
    "provider's quota": (
        "completion_request_error",
        400,
        "[openai] Error: You exceeded your current quota, please check your plan",
        Told(429, "insufficient_quota", "insufficient_quota", started=True),
    ),
    "provider refuses Dify's credentials": (
        "completion_request_error",
        400,
        "Incorrect API key provided",
        Told(502, "api_error", "upstream_misconfigured", started=True),
    ),
    "context too long": (
        "completion_request_error",
        400,
        "This model's maximum context length is 8192 tokens, however you requested 9000",
        Told(400, BAD, "context_length_exceeded", started=True),
    ),
    "context too long, in other words": (
        "completion_request_error",
        400,
        "prompt is too long: 210000 tokens > 200000 maximum",
        Told(400, BAD, "context_length_exceeded", started=True),
    ),
    "chatflow failed, 1.11": (
        "invalid_param",
        400,
        "Run failed: [scripted] Server Unavailable Error, boom",
        Told(502, "api_error", "invalid_param", started=True),
    ),
    "internal error": (
        "internal_server_error",
        500,
        "Internal Server Error, please contact support.",
        Told(502, "api_error", "internal_server_error", started=True),
    ),
    "publisher failed (1.13 and later)": (
        None,
        500,
        "stream broke",
        Told(502, "api_error", "upstream_error", started=True),
    ),
    "agent without an answer (1.16)": (
        "completion_request_error",
        400,
        "Exceeded maximum output retries (1)",
        Told(502, "api_error", "completion_request_error", started=True),
    ),
    "concurrency limit": (
        "invalid_param",
        400,
        CONCURRENCY,
        Told(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
}


@pytest.mark.parametrize(("code", "status", "message", "expected"), EVENTS.values(), ids=EVENTS)
def test_error_events(code: str | None, status: int, message: str, expected: Told) -> None:
    assert told(translate_error(code, status, message, own_key=True, started=True)) == expected


# workflow_finished.data.error, which is all that is told of a failed run.
FAILURES: dict[str, tuple[str, Told]] = {
    "LLM failed": ("[scripted] Server Unavailable Error, boom", Told(502, "api_error", "upstream_error", started=True)),
    "no words": ("", Told(502, "api_error", "upstream_error", started=True)),
    "provider limits": (
        "[openai] Rate Limit Error, slow down",
        Told(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
    "required input missing (1.16)": (
        "query is required in input form",
        Told(400, BAD, None, "inputs.query", started=True),
    ),
    "JSON input that is none (1.16)": (
        "cfg in input form must be a dict",
        Told(400, BAD, None, "inputs.cfg", started=True),
    ),
    "foreign file (1.16)": ("Invalid upload file", Told(400, BAD, None, started=True)),
    "too many files": (
        "Number of image files exceeds the maximum limit 3",
        Told(400, BAD, None, started=True),
    ),
    "file of a wrong type": ("File validation failed for file: a.exe", Told(400, BAD, None, started=True)),
    "provider refuses Dify's credentials": (
        "Incorrect API key provided",
        Told(502, "api_error", "upstream_misconfigured", started=True),
    ),
}


@pytest.mark.parametrize(("message", "expected"), FAILURES.values(), ids=FAILURES)
def test_failed_runs(message: str, expected: Told) -> None:
    assert told(translate_failure(message)) == expected


@pytest.mark.parametrize(
    "message",
    [
        "Access token is invalid",
        "Authorization header must be provided and start with 'Bearer'",
        "Authorization scheme must be 'Bearer'",
        "",
    ],
)
def test_a_refused_key_is_the_fault_of_whoever_holds_it(message: str) -> None:
    body = json.encode({"code": "unauthorized", "message": message, "status": 401})
    ours = translate_rejection(401, "application/json", body, own_key=True)
    assert told(ours) == Told(502, "api_error", "upstream_misconfigured")
    assert "token" not in ours.message
    assert "Bearer" not in ours.message
    assert ours.log is not None
    assert message in ours.log
    theirs = translate_rejection(401, "application/json", body, own_key=False)
    assert told(theirs) == Told(401, "authentication_error", "invalid_api_key")
    assert message in theirs.message


# Something before Dify answers: status, content type, body.
BALANCERS: dict[str, tuple[int, str, bytes, Told]] = {
    "502 HTML": (
        502,
        "text/html",
        b"<html><h1>502 Bad Gateway</h1></html>",
        Told(502, "api_error", "upstream_error", started=True),
    ),
    "503 HTML": (503, "text/html", b"<html>", Told(503, "api_error", "upstream_unreachable", started=True)),
    "504 HTML": (504, "text/html", b"<html>", Told(504, "api_error", "upstream_timeout", started=True)),
    "520": (520, "text/html", b"<html>", Told(503, "api_error", "upstream_unreachable", started=True)),
    "523": (523, "text/plain", b"error code: 523", Told(503, "api_error", "upstream_unreachable", started=True)),
    "524": (524, "text/html", b"", Told(504, "api_error", "upstream_timeout", started=True)),
    "500 without a type": (500, "", b"", Told(502, "api_error", "upstream_error", started=True)),
    "500 that is not UTF-8": (
        500,
        "application/json",
        b'{"code":"x","message":"caf\xe9"}',
        Told(502, "api_error", "upstream_error", started=True),
    ),
    "500 that nests without end": (
        500,
        "application/json",
        b'{"x":' + b"[" * 100_000,
        Told(502, "api_error", "upstream_error", started=True),
    ),
    "a JSON array": (400, "application/json", b"[]", Told(502, "api_error", "upstream_error")),
    "413 of nginx": (413, "text/html", b"<html>", Told(413, BAD, "request_too_large")),
    "429 of a balancer": (429, "text/html", b"<html>", Told(429, "rate_limit_error", "rate_limit_exceeded")),
    "404 HTML: no Dify API there": (404, "text/html", b"<html>", Told(502, "api_error", "upstream_misconfigured")),
    "403 HTML": (403, "text/html", b"<html>", Told(502, "api_error", "upstream_error")),
}


@pytest.mark.parametrize(("status", "content_type", "body", "expected"), BALANCERS.values(), ids=BALANCERS)
def test_what_stands_before_dify(status: int, content_type: str, body: bytes, expected: Told) -> None:
    error = translate_rejection(status, content_type, body, own_key=True)
    assert told(error) == expected
    assert "<" not in error.message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirection_is_told_to_the_operator_only(status: int) -> None:
    error = translate_rejection(
        status, "text/html", b"", own_key=True, location="https://dify.internal/v1/chat-messages"
    )
    assert told(error) == Told(502, "api_error", "upstream_misconfigured")
    assert "dify.internal" not in error.message
    assert error.log is not None
    assert "https://dify.internal/v1/chat-messages" in error.log


def test_a_concurrency_limit_says_when_to_come_back_and_not_which_app() -> None:
    error = translate_error("invalid_param", 400, CONCURRENCY, own_key=True)
    assert error.retry_after == CONCURRENCY_RETRY_AFTER
    assert "0f3c9f5e" not in error.message


def test_operators_faults_are_explained_in_the_log() -> None:
    for code, message in (("provider_not_initialize", "No credentials for scripted."), ("not_chat_app", "Wrong app.")):
        error = translate_error(code, 400, message, own_key=True)
        assert message not in error.message
        assert error.log is not None
        assert message in error.log
        assert code in error.log


# Dify's words, and what may be shown of them.
SECRETS = {
    "Incorrect API key provided: sk-abcDEF123456": "Incorrect API key provided: sk-***",
    "sk-proj-abc_def-123 and sk-ant-api03-xyz": "sk-*** and sk-***",
    "masked by OpenAI: sk-abc****************wxyz.": "masked by OpenAI: sk-***",
    "key app-1A2b3C4d5E6f7G8h here": "key app-*** here",
    "dataset-1A2b3C4d5E6f7G8h": "dataset-***",
    "risk-assessment, the app": "risk-assessment, the app",
    NOT_EXISTS: "Conversation Not Exists.",
}


def test_hints_of_difys_libraries_are_removed() -> None:
    assert clean(NOT_EXISTS) == "Conversation Not Exists."
    hint = "\n    For further information visit https://errors.pydantic.dev/2.11/v/missing"
    assert clean(f"Field required{hint}") == "Field required"
    assert clean(f"Field required{hint}\nfiles\n  Too long{hint}") == "Field required\nfiles\n  Too long"


WRONG_KEY = "Access token is invalid"


@pytest.mark.parametrize("message", [WRONG_KEY, f"{WRONG_KEY}."])
def test_a_wrong_key_is_reported_in_two_sentences(message: str) -> None:
    servers = translate_error("unauthorized", 401, message, own_key=True)
    assert servers.log == (
        "Dify rejected the app's key: Access token is invalid. Set a valid key for this app; it starts with app-."
    )
    assert WRONG_KEY not in servers.message
    clients = translate_error("unauthorized", 401, message, own_key=False)
    assert clients.message == (
        "Dify rejected the Dify key of this request: Access token is invalid. "
        "Send a valid key of the app; it starts with app-."
    )
    assert translate_error("unauthorized", 401, "", own_key=False).message == (
        "Dify rejected the Dify key of this request. Send a valid key of the app; it starts with app-."
    )


@pytest.mark.parametrize(("message", "shown"), SECRETS.items())
def test_words_are_shown_without_secrets(message: str, shown: str) -> None:
    assert clean(message) == shown


@pytest.mark.parametrize("code", [None, "invalid_param", "completion_request_error", "not_found", "unheard_of"])
@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 429, 500, 501])
def test_no_way_leads_a_secret_to_the_client(code: str | None, status: int) -> None:
    message = "Error near sk-abcDEF123456ghi and app-1A2b3C4d5E6f7G8h"
    for error in (
        translate_error(code, status, message, own_key=True),
        translate_error(code, status, message, own_key=False, started=True),
        translate_failure(message),
    ):
        shown: list[Any] = [error.message, error.code, error.param, error.log]
        assert not any("abcDEF" in str(part) or "1A2b" in str(part) for part in shown)


@pytest.mark.parametrize("body", [b'{"message":"secret"}', b'{"message":"secret","code":17,"status":400}'])
def test_json_that_is_not_difys(body: bytes) -> None:
    error = translate_rejection(400, "application/json", body, own_key=True)
    assert told(error) == Told(502, "api_error", "upstream_error")
    assert "secret" not in error.message


def test_words_that_repeat_a_whole_file_are_cut() -> None:
    message = "Reached maximum retries (3) for URL data:image/png;base64," + "A" * 100_000
    for error in (translate_error("invalid_param", 400, message, own_key=True), translate_failure(message)):
        assert "Reached maximum retries (3)" in error.message
        assert len(error.message) < 1200
