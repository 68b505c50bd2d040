"""Translate Dify's failures, as observed on real servers, to the errors that clients receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.errors import SEE_LOG, ProxyError
from openai_dify_proxy.translate.dify.errors import (
    CONCURRENCY_RETRY_AFTER,
    clean,
    translate_error,
    translate_failure,
    translate_rejection,
)


@dataclass(frozen=True)
class Translated:
    status: int
    type: str
    code: str | None
    param: str | None = None
    started: bool = False


def rejection(status: int, content_type: str, body: bytes, *, own_key: bool, location: str | None = None) -> ProxyError:
    return translate_rejection(
        status, content_type, body, url="http://dify.lan/v1", setting="DIFY_API_URL", own_key=own_key, location=location
    )


def translated(error: ProxyError) -> Translated:
    return Translated(error.status, error.type, error.code, error.param, error.started)


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
REFUSALS: dict[str, tuple[int, str | None, str, Translated]] = {
    "API disabled": (
        403,
        "forbidden",
        "The app's API service has been disabled.",
        Translated(403, "permission_error", "forbidden"),
    ),
    "chat request to a completion app": (
        400,
        "not_chat_app",
        "Please check if your app mode matches the right API route.",
        Translated(503, "api_error", "not_chat_app"),
    ),
    "completion request to a chat app": (
        400,
        "app_unavailable",
        "App unavailable, please check your app configurations.",
        Translated(503, "api_error", "app_unavailable"),
    ),
    "completion request to another app": (
        400,
        "not_completion_app",
        "",
        Translated(503, "api_error", "not_completion_app"),
    ),
    "workflow request to a chat app": (400, "not_workflow_app", "", Translated(503, "api_error", "not_workflow_app")),
    "unpublished agent": (
        400,
        "agent_not_published",
        "",
        Translated(503, "api_error", "agent_not_published"),
    ),
    "query missing": (400, "invalid_param", PYDANTIC, Translated(400, BAD, "invalid_param")),
    "query empty": (400, "invalid_param", "query is required", Translated(400, BAD, "invalid_param")),
    "user missing": (400, "invalid_param", "Arg user must be provided.", Translated(400, BAD, "invalid_param")),
    "required input missing": (
        400,
        "invalid_param",
        "topic is required in input form",
        Translated(400, BAD, "invalid_param", "inputs.topic"),
    ),
    "input too long": (
        400,
        "invalid_param",
        "topic in input form must be less than 10 characters",
        Translated(400, BAD, "invalid_param", "inputs.topic"),
    ),
    "input not an option": (
        400,
        "invalid_param",
        "tone in input form must be one of the following: ['a', 'b']",
        Translated(400, BAD, "invalid_param", "inputs.tone"),
    ),
    "input not a number": (
        400,
        "invalid_param",
        "count in input form must be a valid number",
        Translated(400, BAD, "invalid_param", "inputs.count"),
    ),
    "input of the wrong type": (
        400,
        "invalid_param",
        "(type 'text-input') name in input form must be a string",
        Translated(400, BAD, "invalid_param", "inputs.name"),
    ),
    "JSON input that is none (1.16)": (
        400,
        "invalid_param",
        "cfg in input form must be a dict",
        Translated(400, BAD, "invalid_param", "inputs.cfg"),
    ),
    "malformed JSON": (
        400,
        "bad_request",
        "Failed to decode JSON object: Expecting value: line 1 column 1 (char 0)",
        Translated(400, BAD, "bad_request"),
    ),
    "wrong content type": (
        415,
        "unsupported_media_type",
        "Did not attempt to load JSON data because the request Content-Type was not 'application/json'.",
        Translated(415, BAD, "unsupported_media_type"),
    ),
    "body that is an array": (500, "unknown", "Internal Server Error", Translated(502, "api_error", "unknown")),
    "conversation unknown": (
        404,
        "not_found",
        NOT_EXISTS,
        Translated(404, BAD, "conversation_not_found", "conversation_id"),
    ),
    "workflow unknown": (404, "not_found", "Workflow not found", Translated(404, BAD, "not_found")),
    "workflow id bad": (400, "bad_request", "Invalid workflow_id format", Translated(400, BAD, "bad_request")),
    "concurrency limit": (
        400,
        "invalid_param",
        CONCURRENCY,
        Translated(429, "rate_limit_error", "rate_limit_exceeded"),
    ),
    "concurrency limit as documented": (
        429,
        "too_many_requests",
        CONCURRENCY,
        Translated(429, "rate_limit_error", "rate_limit_exceeded"),
    ),
    "run quota of Dify's cloud used up": (
        429,
        "rate_limit_error",
        "Rate limit exceeded",
        Translated(429, "insufficient_quota", "insufficient_quota"),
    ),
    "some limit": (429, "slow_down", "Slow down.", Translated(429, "rate_limit_error", "slow_down")),
    "provider without credentials": (
        400,
        "provider_not_initialize",
        "Model credentials is not initialized.",
        Translated(503, "api_error", "provider_not_initialize"),
    ),
    "model not supported": (
        400,
        "model_currently_not_support",
        "",
        Translated(503, "api_error", "model_currently_not_support"),
    ),
    "provider deleted": (
        400,
        "invalid_param",
        "Provider langgenius/openai/openai does not exist.",
        Translated(503, "api_error", "invalid_param"),
    ),
    "model deleted": (400, "invalid_param", "Model gpt-9 not exist.", Translated(503, "api_error", "invalid_param")),
    "provider quota": (
        400,
        "provider_quota_exceeded",
        "Your quota for Dify Hosted Model Provider has been exhausted.",
        Translated(429, "insufficient_quota", "insufficient_quota"),
    ),
    "LLM failed, blocking chatflow": (
        400,
        "invalid_param",
        "Run failed: [scripted] Server Unavailable Error, boom",
        Translated(502, "api_error", "invalid_param", started=True),
    ),
    "upload of another user (1.16)": (
        400,
        "invalid_param",
        "Invalid upload file",
        Translated(400, BAD, "invalid_param"),
    ),
    "file too large": (
        413,
        "file_too_large",
        "File size exceeded. {message}",
        Translated(413, BAD, "file_too_large"),
    ),
    "form answered (1.16)": (
        412,
        "human_input_form_submitted",
        "This form has already been submitted by another user, form_id=75ca4338-9f31-4c15-8c97-8435f14a1895",
        Translated(412, BAD, "human_input_form_submitted", "human_input"),
    ),
    "form expired": (
        412,
        "human_input_form_expired",
        "",
        Translated(412, BAD, "human_input_form_expired", "human_input"),
    ),
    "form not filled in (1.16)": (
        400,
        "invalid_form_data",
        "Missing required inputs: note",
        Translated(400, BAD, "invalid_form_data", "human_input"),
    ),
    "unknown form (1.16)": (
        404,
        "not_found",
        "Form not found. You have requested this URI [/v1/form/human_input/nope] but did you mean …",
        Translated(404, BAD, "human_input_form_not_found", "human_input"),
    ),
    "audio of a wrong type": (415, "unsupported_audio_type", "", Translated(415, BAD, "unsupported_audio_type")),
    "audio too large": (
        413,
        "audio_too_large",
        "Audio size larger than 30 mb",
        Translated(413, BAD, "audio_too_large"),
    ),
    "speech to text off (1.16)": (
        400,
        "speech_to_text_disabled",
        "Speech to text is disabled.",
        Translated(400, BAD, "speech_to_text_disabled", "model"),
    ),
    "speech to text off": (
        400,
        "invalid_param",
        "Speech to text is not enabled",
        Translated(400, BAD, "speech_to_text_disabled", "model"),
    ),
    "text to speech off": (
        400,
        "invalid_param",
        "TTS is not enabled",
        Translated(400, BAD, "text_to_speech_disabled", "model"),
    ),
    "text to speech off, with a code": (
        400,
        "text_to_speech_disabled",
        "Text to speech is disabled.",
        Translated(400, BAD, "text_to_speech_disabled", "model"),
    ),
    "no model for speech to text": (
        400,
        "provider_not_support_speech_to_text",
        "Provider not support speech to text.",
        Translated(503, "api_error", "provider_not_support_speech_to_text"),
    ),
    "no model for text to speech": (
        400,
        "provider_not_support_text_to_speech",
        "Provider not support text to speech.",
        Translated(503, "api_error", "provider_not_support_text_to_speech"),
    ),
    "wrong method": (
        405,
        "method_not_allowed",
        "The method is not allowed for the requested URL.",
        Translated(400, BAD, "method_not_allowed"),
    ),
    "blocking request to an agent (1.16)": (
        400,
        "bad_request",
        "Agent App only supports streaming response mode.",
        Translated(400, BAD, "bad_request"),
    ),
}


@pytest.mark.parametrize("own_key", [True, False])
@pytest.mark.parametrize(("status", "code", "message", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(status: int, code: str | None, message: str, expected: Translated, own_key: bool) -> None:
    body = json.encode({"code": code, "message": message, "status": status})
    assert translated(rejection(status, "application/json", body, own_key=own_key)) == expected


# Error events inside a stream: code, status, message.
EVENTS: dict[str, tuple[str | None, int, str, Translated]] = {
    "LLM failed": (
        "completion_request_error",
        400,
        "[scripted] Bad Request Error, boom",
        Translated(502, "api_error", "completion_request_error", started=True),
    ),
    "LLM unreachable": (
        "completion_request_error",
        400,
        "[scripted] Connection Error, connection refused",
        Translated(502, "api_error", "completion_request_error", started=True),
    ),
    "provider limits, up to 1.13": (
        "completion_request_error",
        400,
        "[openai] Rate Limit Error, Rate limit reached for gpt-4o",
        Translated(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
    "provider limits, 1.16": (
        "rate_limit_error",
        429,
        "[openai] Rate Limit Error, slow down",
        Translated(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
    "provider's quota": (
        "completion_request_error",
        400,
        "[openai] Error: You exceeded your current quota, please check your plan",
        Translated(429, "insufficient_quota", "insufficient_quota", started=True),
    ),
    "provider refuses Dify's credentials": (
        "completion_request_error",
        400,
        "Incorrect API key provided",
        Translated(502, "api_error", "upstream_misconfigured", started=True),
    ),
    "context too long": (
        "completion_request_error",
        400,
        "This model's maximum context length is 8192 tokens, however you requested 9000",
        Translated(400, BAD, "context_length_exceeded", started=True),
    ),
    "context too long, with another message": (
        "completion_request_error",
        400,
        "prompt is too long: 210000 tokens > 200000 maximum",
        Translated(400, BAD, "context_length_exceeded", started=True),
    ),
    "chatflow failed, 1.11": (
        "invalid_param",
        400,
        "Run failed: [scripted] Server Unavailable Error, boom",
        Translated(502, "api_error", "invalid_param", started=True),
    ),
    "internal error": (
        "internal_server_error",
        500,
        "Internal Server Error, please contact support.",
        Translated(502, "api_error", "internal_server_error", started=True),
    ),
    "publisher failed (1.13 and later)": (
        None,
        500,
        "stream broke",
        Translated(502, "api_error", "upstream_error", started=True),
    ),
    "agent without an answer (1.16)": (
        "completion_request_error",
        400,
        "Exceeded maximum output retries (1)",
        Translated(502, "api_error", "completion_request_error", started=True),
    ),
    "concurrency limit": (
        "invalid_param",
        400,
        CONCURRENCY,
        Translated(429, "rate_limit_error", "rate_limit_exceeded"),
    ),
    "concurrency limit of a chatflow, 1.11": (
        "invalid_param",
        400,
        f"Run failed: {CONCURRENCY}",
        Translated(429, "rate_limit_error", "rate_limit_exceeded"),
    ),
    "concurrency limit (1.17)": (
        "too_many_requests",
        429,
        CONCURRENCY,
        Translated(429, "rate_limit_error", "rate_limit_exceeded"),
    ),
}


@pytest.mark.parametrize(("code", "status", "message", "expected"), EVENTS.values(), ids=EVENTS)
def test_error_events(code: str | None, status: int, message: str, expected: Translated) -> None:
    assert translated(translate_error(code, status, message, own_key=True, started=True)) == expected


# workflow_finished.data.error, the only description of a failed run.
FAILURES: dict[str, tuple[str, Translated]] = {
    "LLM failed": (
        "[scripted] Server Unavailable Error, boom",
        Translated(502, "api_error", "upstream_error", started=True),
    ),
    "empty message": ("", Translated(502, "api_error", "upstream_error", started=True)),
    "provider limits": (
        "[openai] Rate Limit Error, slow down",
        Translated(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
    "required input missing (1.16)": (
        "query is required in input form",
        Translated(400, BAD, None, "inputs.query", started=True),
    ),
    "JSON input that is none (1.16)": (
        "cfg in input form must be a dict",
        Translated(400, BAD, None, "inputs.cfg", started=True),
    ),
    "foreign file (1.16)": ("Invalid upload file", Translated(400, BAD, None, started=True)),
    "too many files": (
        "Number of image files exceeds the maximum limit 3",
        Translated(400, BAD, None, started=True),
    ),
    "file of a wrong type": ("File validation failed for file: a.exe", Translated(400, BAD, None, started=True)),
    "provider refuses Dify's credentials": (
        "Incorrect API key provided",
        Translated(502, "api_error", "upstream_misconfigured", started=True),
    ),
    **{
        message: (message, Translated(502, "api_error", "upstream_misconfigured", started=True))
        for message in (
            "[openai] Incorrect model credentials provided, please check and try again.",
            "[anthropic] Bad Request Error, authentication failed",
            "Error code: 401 - {'type': 'error', 'error': {'type': 'authentication_error'}}",
            "InvokeAuthorizationError: no access",
            "401 Unauthorized",
        )
    },
    "provider's limit, as an exception": (
        "fake InvokeRateLimitError",
        Translated(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
    "provider's limit, in Dify's words": (
        "Too many requests. Slow down.",
        Translated(429, "rate_limit_error", "rate_limit_exceeded", started=True),
    ),
    "Dify's concurrency limit": (CONCURRENCY, Translated(429, "rate_limit_error", "rate_limit_exceeded")),
    "model without credentials": (
        "Model demo-model credentials is not initialized.",
        Translated(503, "api_error", "app_unavailable", started=True),
    ),
    "model that is gone": (
        "Model demo-model not exist.",
        Translated(503, "api_error", "app_unavailable", started=True),
    ),
    "failure of a tool": (
        "HTTP request node: the server requires authentication",
        Translated(502, "api_error", "upstream_error", started=True),
    ),
}


@pytest.mark.parametrize(("message", "expected"), FAILURES.values(), ids=FAILURES)
def test_failed_runs(message: str, expected: Translated) -> None:
    assert translated(translate_failure(message)) == expected


@pytest.mark.parametrize(
    "message",
    [
        "Access token is invalid",
        "Authorization header must be provided and start with 'Bearer'",
        "Authorization scheme must be 'Bearer'",
        "",
    ],
)
def test_a_rejected_key_is_blamed_on_its_owner(message: str) -> None:
    body = json.encode({"code": "unauthorized", "message": message, "status": 401})
    server_key = rejection(401, "application/json", body, own_key=True)
    assert translated(server_key) == Translated(502, "api_error", "upstream_misconfigured")
    assert server_key.message == f"Dify rejected the key that this server has for the model. {SEE_LOG}"
    assert server_key.log is not None
    assert message in server_key.log
    caller_key = rejection(401, "application/json", body, own_key=False)
    assert translated(caller_key) == Translated(401, "authentication_error", "invalid_api_key")
    assert message in caller_key.message


# Answers of a server in front of Dify: status, content type, body.
BALANCERS: dict[str, tuple[int, str, bytes, Translated]] = {
    "502 HTML": (
        502,
        "text/html",
        b"<html><h1>502 Bad Gateway</h1></html>",
        Translated(502, "api_error", "upstream_error", started=True),
    ),
    "503 HTML": (503, "text/html", b"<html>", Translated(503, "api_error", "upstream_unreachable", started=True)),
    "504 HTML": (504, "text/html", b"<html>", Translated(504, "api_error", "upstream_timeout", started=True)),
    "520": (520, "text/html", b"<html>", Translated(503, "api_error", "upstream_unreachable", started=True)),
    "523": (523, "text/plain", b"error code: 523", Translated(503, "api_error", "upstream_unreachable", started=True)),
    "524": (524, "text/html", b"", Translated(504, "api_error", "upstream_timeout", started=True)),
    "500 without a type": (500, "", b"", Translated(502, "api_error", "upstream_error", started=True)),
    "500 that is not UTF-8": (
        500,
        "application/json",
        b'{"code":"x","message":"caf\xe9"}',
        Translated(502, "api_error", "upstream_error", started=True),
    ),
    "500 nested too deeply": (
        500,
        "application/json",
        b'{"x":' + b"[" * 100_000,
        Translated(502, "api_error", "upstream_error", started=True),
    ),
    "a JSON array": (400, "application/json", b"[]", Translated(502, "api_error", "upstream_error")),
    "413 of nginx": (413, "text/html", b"<html>", Translated(413, BAD, "request_too_large")),
    "429 of a balancer": (429, "text/html", b"<html>", Translated(429, "rate_limit_error", "rate_limit_exceeded")),
    "404 HTML: no Dify API there": (
        404,
        "text/html",
        b"<html>",
        Translated(502, "api_error", "upstream_misconfigured"),
    ),
    "403 HTML": (403, "text/html", b"<html>", Translated(502, "api_error", "upstream_error")),
}


@pytest.mark.parametrize(("status", "content_type", "body", "expected"), BALANCERS.values(), ids=BALANCERS)
def test_answers_of_a_server_in_front_of_dify(
    status: int, content_type: str, body: bytes, expected: Translated
) -> None:
    error = rejection(status, content_type, body, own_key=True)
    assert translated(error) == expected
    assert "<" not in error.message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_reported_to_the_operator_only(status: int) -> None:
    error = rejection(status, "text/html", b"", own_key=True, location="https://dify.internal/v1/chat-messages")
    assert translated(error) == Translated(502, "api_error", "upstream_misconfigured")
    assert "dify.internal" not in error.message
    assert error.log is not None
    assert error.log == (
        "The Dify URL 'http://dify.lan/v1' redirects to https://dify.internal/v1/chat-messages. "
        "Correct DIFY_API_URL; often https:// replaces http://."
    )


def test_a_url_that_is_not_difys_is_named_to_the_operator_only() -> None:
    error = rejection(404, "text/html", b"<html>", own_key=True)
    assert error.message == f"This server's Dify URL does not lead to a Dify API. {SEE_LOG}"
    assert error.log == (
        "The Dify URL 'http://dify.lan/v1' answered HTTP 404 (text/html). "
        "Set DIFY_API_URL to the URL of Dify's API; it usually ends with /v1."
    )


def test_a_concurrency_limit_has_a_retry_after_and_hides_the_app_id() -> None:
    error = translate_error("invalid_param", 400, CONCURRENCY, own_key=True)
    assert error.retry_after == CONCURRENCY_RETRY_AFTER
    assert "0f3c9f5e" not in error.message


def test_configuration_errors_are_explained_in_the_log() -> None:
    for code, message in (("provider_not_initialize", "No credentials for scripted."), ("not_chat_app", "Wrong app.")):
        error = translate_error(code, 400, message, own_key=True)
        assert message not in error.message
        assert error.log is not None
        assert message in error.log
        assert code in error.log


# Dify's messages, and the parts that clients may see.
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
def test_messages_are_shown_without_secrets(message: str, shown: str) -> None:
    assert clean(message) == shown


@pytest.mark.parametrize("code", [None, "invalid_param", "completion_request_error", "not_found", "unheard_of"])
@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 429, 500, 501])
def test_no_error_exposes_a_secret(code: str | None, status: int) -> None:
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
    error = rejection(400, "application/json", body, own_key=True)
    assert translated(error) == Translated(502, "api_error", "upstream_error")
    assert "secret" not in error.message


def test_messages_that_repeat_a_whole_file_are_cut() -> None:
    message = "Reached maximum retries (3) for URL data:image/png;base64," + "A" * 100_000
    for error in (translate_error("invalid_param", 400, message, own_key=True), translate_failure(message)):
        assert "Reached maximum retries (3)" in error.message
        assert len(error.message) < 1200
