"""Paths that match no route: unambiguous ones are served, others get an error with the remedy."""

from __future__ import annotations

import asyncio
import time

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from openai_dify_proxy.api.unsupported import UNSUPPORTED
from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import ask, chat_body, error_of, the_turn
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer

SERVED = [
    "/v1/chat/completions/",
    "/chat/completions/",
    "/v1/v1/chat/completions",
    "/v1/v1/v1/chat/completions",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1//v1//chat//completions//",
    "//chat/completions",
]


@pytest.mark.parametrize("path", SERVED)
async def test_a_path_is_served_under_its_normal_form(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, path: str
) -> None:
    reply = await http.post(proxy.origin + path, json=chat_body("hi", "demo-chat"))
    assert reply.status_code == 200
    assert not reply.history
    assert the_turn(log).app == "demo-chat"


@pytest.mark.parametrize("path", ["/v1/v1/models", "//v1/models", "/v1/models/", "/models/", "/health/", "//ready"])
async def test_a_get_path_is_served_under_its_normal_form(
    proxy: ProxyServer, http: httpx2.AsyncClient, path: str
) -> None:
    assert (await http.get(proxy.origin + path)).status_code == 200


@pytest.mark.parametrize("path", [*SERVED, "/v1/v1/images/generations", "//v1/responses/resp_x/cancel"])
async def test_a_corrected_path_needs_the_key_of_its_route(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, path: str
) -> None:
    guarded = serve(api_keys=(SecretStr("sk-one"),))
    reply = await http.post(guarded.origin + path, json=chat_body("hi"))
    assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
    assert not log.requests


async def test_a_corrected_path_is_protected_against_web_pages(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    reply = await http.post(
        f"{proxy.origin}//v1/chat/completions/", content="{}", headers={"Content-Type": "text/plain"}
    )
    assert (reply.status_code, error_of(reply)["code"]) == (415, "unsupported_media_type")
    reply = await http.get(f"{proxy.origin}//v1/models", headers={"Host": "rebound.example"})
    assert (reply.status_code, error_of(reply)["code"]) == (403, "host_not_allowed")
    assert not log.requests


INTENDED = [
    ("POST /v1/chat/completions/chat/completions", "/v1/chat/completions"),
    ("POST /v1/chat/completions/responses", "/v1/responses"),
    ("POST /chat/completions/chat/completions/", "/v1/chat/completions"),
    ("GET /v1/chat/completions/models", "/v1/models"),
    ("GET /v1/chat/completions/models/team/support", "/v1/models/team/support"),
    ("POST /v1/responses/resp_1/chat/completions", "/v1/chat/completions"),
    ("POST /v1/images/generations/images/edits", "/v1/images/edits"),
    ("POST /v2/chat/completions", "/v1/chat/completions"),
    ("POST /api/v1/chat/completions", "/v1/chat/completions"),
    ("POST /openai/deployments/gpt-4o/chat/completions", "/v1/chat/completions"),
    ("GET /v1/health", "/health"),
    ("POST /V1/Chat/Completions", "/v1/chat/completions"),
    ("POST /v1/Chat/completions", "/v1/chat/completions"),
    ("POST /v1/chats/completions", "/v1/chat/completions"),
    ("POST /v1/chat/completion", "/v1/chat/completions"),
    ("POST /v1/image/generations", "/v1/images/generations"),
    ("POST /v1/chat-messages", "/v1/chat/completions"),
    ("POST /v1/completion-messages", "/v1/chat/completions"),
    ("POST /v1/workflows/run", "/v1/chat/completions"),
]


@pytest.mark.parametrize(("call", "intended"), INTENDED, ids=[call for call, _ in INTENDED])
async def test_a_wrong_base_url_is_a_404_that_names_the_right_route(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, call: str, intended: str
) -> None:
    method, path = call.split()
    reply = await http.request(method, proxy.origin + path, json=chat_body("hi") if method == "POST" else None)
    error = error_of(reply)
    assert (reply.status_code, error["code"]) == (404, "not_found")
    assert f"Did you mean {method} {intended}?" in error["message"]
    assert error["message"].endswith("The base URL of the API ends in '/v1'.")
    assert not log.requests


@pytest.mark.parametrize("call", ["POST /", "GET /v1", "GET /v1/", "GET //v1/v1", "POST /v1"])
async def test_the_base_url_itself_is_a_404_that_names_routes(
    proxy: ProxyServer, http: httpx2.AsyncClient, call: str
) -> None:
    method, path = call.split()
    reply = await http.request(method, proxy.origin + path)
    assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")
    assert error_of(reply)["message"] == (
        "This is the base URL of the OpenAI API. Try GET /v1/models, or POST /v1/chat/completions."
    )


@pytest.mark.parametrize(
    ("route", "status"), [("/v1/chat/completions", 404), ("/v1/models", 405), ("/v1/responses", 404)]
)
async def test_a_route_as_base_url_of_the_official_client_is_explained(
    proxy: ProxyServer, route: str, status: int
) -> None:
    http = DefaultAsyncHttpxClient(verify=False)
    async with AsyncOpenAI(base_url=proxy.origin + route, api_key="unused", http_client=http) as client:
        with pytest.raises(openai.APIStatusError) as wrong:
            await ask(client, "demo-chat", "hi")
    assert wrong.value.status_code == status
    assert "Did you mean POST /v1/chat/completions?" in wrong.value.message


async def test_the_error_names_the_public_url_if_it_is_set(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(public_url="https://ai.example.com/dify")
    reply = await http.get(f"{proxy.origin}/v1/nothing")
    assert error_of(reply)["message"].endswith("The base URL of the API is 'https://ai.example.com/dify/v1'.")


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        ("GET /v1/chat/completions", "POST"),
        ("GET /v1/v1/chat/completions/", "POST"),
        ("DELETE /v1/models", "GET, HEAD"),
        ("PUT /v1/responses/resp_1", "DELETE, GET, HEAD"),
        ("PUT /v1/conversations/conv_1", "DELETE, GET, HEAD, POST"),
    ],
)
async def test_a_wrong_method_is_a_405_with_the_allowed_methods(
    proxy: ProxyServer, http: httpx2.AsyncClient, call: str, allowed: str
) -> None:
    method, path = call.split()
    reply = await http.request(method, proxy.origin + path)
    assert (reply.status_code, error_of(reply)["code"]) == (405, "method_not_allowed")
    assert reply.headers["allow"] == allowed


UNSUPPORTED_CALLS = [
    "POST /v1/embeddings",
    "POST /embeddings/",
    "POST /v1/v1/embeddings",
    "POST /v1/chat/completions/embeddings",
    "POST /v1/moderations",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "POST /v1/complete",
    "POST /v1/rerank",
    "POST /v1/audio/voice_consents",
    "POST /v1/uploads",
    "POST /v1/uploads/upload_1/parts",
    "POST /v1/batches",
    "POST /v1/assistants",
    "POST /v1/threads",
    "POST /v1/threads/thread_1/messages",
    "POST /v1/threads/thread_1/runs",
    "POST /v1/vector_stores/vs_1/files",
    "POST /v1/fine_tuning/jobs",
    "GET /v1/realtime",
    "POST /v1/realtime/sessions",
    "POST /v1/realtime/client_secrets",
    "POST /v1/evals",
    "POST /v1/videos",
    "POST /v1/containers",
    "POST /v1/chatkit/sessions",
    "GET /v1/organization/usage/completions",
    "POST /v1/responses/compact",
    "GET /v1/chat/completions/chatcmpl-1",
    "GET /v1/chat/completions/chatcmpl-1/messages",
]


@pytest.mark.parametrize("call", UNSUPPORTED_CALLS)
async def test_an_endpoint_without_counterpart_in_dify_is_an_unsupported_endpoint(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, call: str
) -> None:
    method, path = call.split()
    reply = await http.request(method, proxy.origin + path, json={} if method == "POST" else None)
    assert (reply.status_code, error_of(reply)["code"]) == (404, "unsupported_endpoint")
    assert error_of(reply)["message"] in UNSUPPORTED.values()
    assert not log.requests


async def test_the_official_client_does_not_retry_an_unsupported_endpoint(
    proxy: ProxyServer, capfd: pytest.CaptureFixture[str]
) -> None:
    async with proxy.client() as client:
        with pytest.raises(openai.NotFoundError) as unsupported:
            await client.embeddings.create(model="text-embedding-3-small", input="hi")
    assert unsupported.value.code == "unsupported_endpoint"
    assert "Dify apps do not compute embeddings." in unsupported.value.message


async def test_a_long_path_is_handled_quickly(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    began = time.process_time()  # of the proxy, which runs in this process
    paths = ["/a" * 8_000, "/v1" * 5_000 + "/x", "/" * 16_000 + "x", "/v1/models/chat" * 1000]
    replies = await asyncio.gather(*(http.post(f"{proxy.origin}{path}") for path in paths))
    assert time.process_time() - began < 2
    assert {reply.status_code for reply in replies} <= {404, 405}
    assert all(len(reply.content) < 1000 for reply in replies)
