"""Errors: their envelope, the statuses for Dify's errors, and the retries of SDKs."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import MODELS, ask, ask_streaming, chat_body, error_of, turns
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer, app_settings


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        ("GET /v2", 404, "not_found"),
        ("GET /v1", 404, "not_found"),
        ("GET /v1/", 404, "not_found"),
        ("POST /v2/chat/completions", 404, "not_found"),
        ("POST /v1/embeddings", 404, "unsupported_endpoint"),
        ("GET /v1/chat/completions", 405, "method_not_allowed"),
        ("PUT /v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE /v1/models", 405, "method_not_allowed"),
        ("POST /v1/models/x", 405, "method_not_allowed"),
        ("POST /health", 405, "method_not_allowed"),
        ("PATCH /completions", 405, "method_not_allowed"),
    ],
)
async def test_unknown_routes_and_methods_are_404_and_405(
    proxy: ProxyServer, http: httpx2.AsyncClient, call: str, status: int, code: str
) -> None:
    method, path = call.split()
    reply = await http.request(method, proxy.origin + path, json={} if method != "GET" else None)
    assert reply.status_code == status
    error = error_of(reply)
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert reply.headers["x-request-id"]
    assert ("allow" in reply.headers) == (status == 405)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"null", None),
        (b"[]", None),
        (b'"text"', None),
        (b'{"model": "demo-chat", "messages": [{"role": "user", "content": "\xff"}]}', None),
        (b'{"model": "demo-chat", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
        (b'{"model": "demo-chat"}', "messages"),
        (b'{"model": "demo-chat", "messages": {}}', "messages"),
        (b'{"model": "demo-chat", "messages": "hi"}', "messages"),
        (b'{"model": "demo-chat", "messages": ["hi"]}', "messages"),
        (b'{"model": "demo-chat", "messages": [{"content": "hi"}]}', "messages"),
        (b'{"model": "demo-chat", "messages": [{"role": "robot", "content": "hi"}]}', "messages"),
        (b'{"model": "demo-chat", "messages": [{"role": "user", "content": 5}]}', "messages"),
        (b'{"model": 7, "messages": [{"role": "user", "content": "hi"}]}', "model"),
        (b'{"model": "demo-chat", "stream": "yes", "messages": [{"role": "user", "content": "hi"}]}', "stream"),
        (b'{"model": "demo-chat", "stop": 5, "messages": [{"role": "user", "content": "hi"}]}', "stop"),
        (b'{"model": "demo-chat", "inputs": [], "messages": [{"role": "user", "content": "hi"}]}', "inputs"),
        (b'{"model": "demo-chat", "metadata": "x", "messages": [{"role": "user", "content": "hi"}]}', "metadata"),
        (b"[" * 100_000, None),
        (b'{"a":' * 100_000, None),
    ],
)
async def test_malformed_bodies_are_rejected(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, body: bytes, param: str | None
) -> None:
    reply = await http.post(f"{proxy.url}/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    error = error_of(reply)
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param or "")
    assert (error["param"] is None) == (param is None)
    assert "`" not in error["message"]
    assert not log.requests


@pytest.mark.parametrize(
    ("fields", "message", "where"),
    [
        (
            {"messages": [{"role": "user", "content": 5}]},
            "Invalid type for 'messages[0].content': expected a string or an array, got an integer.",
            ("messages[0].content", "invalid_type"),
        ),
        (
            {"messages": [{"content": "Hi"}]},
            "Missing required parameter: 'messages[0].role'.",
            ("messages[0].role", "missing_required_parameter"),
        ),
        ({}, "Missing required parameter: 'messages'.", ("messages", "missing_required_parameter")),
        (
            {"messages": []},
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            ("messages", "empty_array"),
        ),
        (
            {"messages": [{"role": "human", "content": "Hi"}]},
            (
                "Invalid value: 'human'. Supported values are: 'system', 'developer', 'user', 'assistant', 'tool' and "
                "'function'."
            ),
            ("messages[0].role", "invalid_value"),
        ),
        (
            {"messages": [{"role": "user", "content": "Hi"}], "n": 500},
            "Invalid 'n': integer above maximum value. Expected a value <= 128, but got 500 instead.",
            ("n", "integer_above_max_value"),
        ),
    ],
)
async def test_invalid_bodies_are_rejected_with_openais_messages(
    proxy: ProxyServer, http: httpx2.AsyncClient, fields: dict[str, Any], message: str, where: tuple[str, str]
) -> None:
    reply = await http.post(f"{proxy.url}/chat/completions", json={"model": "demo-chat", **fields})
    assert reply.status_code == 400
    param, code = where
    assert error_of(reply) == {"message": message, "type": "invalid_request_error", "param": param, "code": code}


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
async def test_a_body_above_the_limit_is_a_413(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, declared: bool
) -> None:
    proxy = serve(max_body_bytes=10_000)
    body = json.dumps(chat_body("x" * 20_000)).encode()

    async def parts() -> Any:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    reply = await http.post(
        f"{proxy.url}/chat/completions",
        content=body if declared else parts(),
        headers={"Content-Type": "application/json"},
    )
    assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
    assert not log.requests
    assert (await http.post(f"{proxy.url}/chat/completions", json=chat_body("x" * 9000))).status_code == 200


REFUSALS = [
    ("ERROR:limit", 429, "rate_limit_exceeded", "rate_limit_error"),
    ("ERROR:provider", 503, "provider_not_initialize", "api_error"),
    ("ERROR:quota", 429, "insufficient_quota", "insufficient_quota"),
    ("ERROR:disabled", 403, "forbidden", "permission_error"),
    ("ERROR:crash", 502, None, "api_error"),
    ("ERROR:nginx", 502, "upstream_error", "api_error"),
    ("ERROR:bad", 502, None, "api_error"),
    ("ERROR:rate", 429, "rate_limit_exceeded", "rate_limit_error"),
    ("ERROR:auth", 502, "upstream_misconfigured", "api_error"),
    ("ERROR:conn", 502, None, "api_error"),
    ("ERROR:internal", 502, None, "api_error"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[0])
@pytest.mark.parametrize("model", MODELS)
async def test_each_error_of_dify_has_its_status(
    proxy: ProxyServer, http: httpx2.AsyncClient, model: str, refusal: tuple[str, int, str | None, str]
) -> None:
    word, status, code, kind = refusal
    errors = []
    for stream in (False, True):
        reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body(word, model, stream=stream))
        assert reply.status_code == status
        error = error_of(reply)
        assert error["type"] == kind
        assert code is None or error["code"] == code
        assert "API key" not in error["message"]
        errors.append(error)
    assert errors[0] == errors[1]


@pytest.mark.parametrize("word", ["ERROR:crash", "ERROR:bad", "ERROR:rate", "ERROR:nginx", "ERROR:auth", "ERROR:quota"])
@pytest.mark.parametrize("model", ["demo-chat@1.16", "demo-advanced-chat@1.13", "demo-workflow@1.11"])
async def test_the_official_client_does_not_retry_if_a_run_may_have_started(
    proxy: ProxyServer, log: DemoLog, model: str, word: str
) -> None:
    """Each retry could be billed again. By default the client retries twice."""
    async with proxy.client() as client:
        assert client.max_retries == 2
        for send in (ask, ask_streaming):
            log.clear()
            with pytest.raises(openai.APIStatusError):
                await send(client, model, word)
            assert len(turns(log)) == 1


@pytest.mark.parametrize("model", MODELS)
async def test_the_official_client_does_not_retry_a_failure_in_mid_answer(
    proxy: ProxyServer, log: DemoLog, model: str
) -> None:
    async with proxy.client() as client:
        with pytest.raises(openai.APIStatusError) as whole:
            await ask(client, model, "one two three four five MIDERROR:bad")
        assert whole.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError) as streamed:
            await ask_streaming(client, model, "one two three four five MIDERROR:bad")
    assert type(streamed.value) is openai.APIError
    assert streamed.value.message in whole.value.message
    assert len(turns(log)) == 2


async def test_the_official_client_retries_if_no_run_was_started(serve: Serve, log: DemoLog) -> None:
    """Dify rejects requests above its concurrency limit before it runs anything, without ``retry-after``."""
    async with serve().client(max_retries=1) as client:
        with pytest.raises(openai.RateLimitError) as limited:
            await ask(client, "demo-chat", "ERROR:limit")
    assert float(limited.value.response.headers["retry-after"]) > 0
    assert limited.value.response.headers.get("x-should-retry") != "false"
    assert len(turns(log)) == 2


async def test_an_unreachable_dify_is_a_503(serve: Serve, demo: DemoServer, log: DemoLog) -> None:
    """Refused connections and unknown host names. With a configured mode, the turn is the first request to Dify."""
    apps = {
        f"{name}-{kind}": app_settings(f"{name}-{kind}", "app-x", url, mode=mode)
        for name, url in (("refused", "http://127.0.0.1:9/v1"), ("unknown", "http://no-such-host.invalid/v1"))
        for kind, mode in (("configured", "chat"), ("detected", None))
    }
    async with serve(apps=apps).client(max_retries=0) as client:
        for name in apps:
            for send in (ask, ask_streaming):
                with pytest.raises(openai.InternalServerError) as unreachable:
                    await send(client, name, "hi")
                error = unreachable.value
                assert (error.status_code, error.code) == (503, "upstream_unreachable")
                assert "invalid" not in error.message
                assert "127.0.0.1" not in error.message
    assert not turns(log)
