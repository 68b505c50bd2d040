"""Secure defaults: protection against web pages, and no keys or message text in errors and logs."""

from __future__ import annotations

import json
import signal
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import chat_body, error_of
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer
from tests.cli.program import Program

PREFLIGHT = {
    "Origin": "https://chat.example.com",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "[::2]", ""),
        *("[::1]evil.example", "[::1].evil.example:80", "evil.example@localhost", "localhost:80:80", "[::1", "::1"),
        *("localhost:evil.example", "localhost/evil.example", "[localhost]"),
    ],
)
async def test_without_client_keys_a_foreign_host_name_is_rejected(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, host: str
) -> None:
    """DNS rebinding: a page that resolves its own name to 127.0.0.1 sends that name."""
    for method, path in (("POST", "/chat/completions"), ("GET", "/models")):
        body = chat_body("hi") if method == "POST" else None
        reply = await http.request(method, f"{proxy.url}{path}", json=body, headers={"Host": host})
        assert reply.status_code == 403
        assert error_of(reply)["code"] == "host_not_allowed"
    assert not log.requests


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8223", "127.0.0.1", "127.8.9.1:1", "[::1]:8223", "app.localhost"]
)
async def test_every_loopback_name_is_served(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, host: str
) -> None:
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi"), headers={"Host": host})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"]
)
async def test_without_client_keys_only_json_is_accepted(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, kind: str | None
) -> None:
    """A web page can send these content types without a preflight."""
    reply = await http.post(
        f"{proxy.url}/chat/completions",
        content=json.dumps(chat_body("hi")),
        headers={} if kind is None else {"Content-Type": kind},
    )
    assert (reply.status_code, error_of(reply)["code"]) == (415, "unsupported_media_type")
    assert not log.requests


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_the_json_content_type_may_have_parameters(
    proxy: ProxyServer, http: httpx2.AsyncClient, kind: str
) -> None:
    reply = await http.post(
        f"{proxy.url}/chat/completions", content=json.dumps(chat_body("hi")), headers={"Content-Type": kind}
    )
    assert reply.status_code == 200


async def test_with_client_keys_host_and_content_type_are_not_checked(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(api_keys=(SecretStr("sk-one"),))
    reply = await http.post(
        f"{proxy.url}/chat/completions",
        content=json.dumps(chat_body("hi")),
        headers={"Authorization": "Bearer sk-one", "Host": "proxy.example.com", "Content-Type": "text/plain"},
    )
    assert reply.status_code == 200


async def test_allow_anonymous_accepts_any_host_name(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(allow_anonymous=True)
    reply = await http.post(
        f"{proxy.url}/chat/completions", json=chat_body("hi"), headers={"Host": "proxy.example.com"}
    )
    assert reply.status_code == 200


async def test_cors_is_off_by_default(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    preflight = await http.options(f"{proxy.url}/chat/completions", headers=PREFLIGHT)
    assert preflight.status_code == 405
    error_of(preflight)
    reply = await http.get(f"{proxy.url}/models", headers={"Origin": "https://chat.example.com"})
    for answer in (preflight, reply):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/models", "/v1/nothing"])
async def test_a_preflight_from_an_allowed_origin_needs_no_key(
    serve: Serve, http: httpx2.AsyncClient, path: str
) -> None:
    proxy = serve(api_keys=(SecretStr("sk-one"),), cors_origins=("https://chat.example.com",))
    reply = await http.options(f"{proxy.origin}{path}", headers=PREFLIGHT)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://chat.example.com"
    allowed = reply.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "x-stainless-lang"))
    strange = await http.options(f"{proxy.origin}{path}", headers={**PREFLIGHT, "Origin": "https://evil.example"})
    assert strange.status_code == 400
    assert "access-control-allow-origin" not in strange.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_an_allowed_page_can_read_answers_errors_and_their_headers(
    serve: Serve, http: httpx2.AsyncClient, stream: bool
) -> None:
    proxy = serve(cors_origins=("https://chat.example.com",))
    headers = {"Origin": "https://chat.example.com"}
    for text, status in (("hi", 200), ("ERROR:rate", 429)):
        reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body(text, stream=stream), headers=headers)
        assert reply.status_code == status
        assert reply.headers["access-control-allow-origin"] == "https://chat.example.com"
        exposed = reply.headers["access-control-expose-headers"].lower()
        assert "x-request-id" in exposed
        assert "x-dify-conversation-id" in exposed
        assert "x-unsupported-parameters" in exposed
        assert "content-location" in exposed


SECRETS = {
    "client": "sk-client-Zq81mPz0",
    "dify": "app-serverside-Xw77Lk2",
    "mine": "app-passthrough-Vb55Rt9",
    "short": "qwertzui",
    "prompt": "mySecretQuestion4711",
}

CONFIG = """
[apps.wrong-key]
api_key = "{dify}"
[apps.closed]
api_key = "{dify}2"
api_url = "http://127.0.0.1:9/v1"
[apps.good]
api_key = "app-demo-chat"
"""


def _requests() -> list[tuple[str, str, dict[str, str], Any]]:
    """Return requests with mistakes, which together contain all secrets."""
    client = {"Authorization": f"Bearer {SECRETS['client']}"}
    mine = {"DIFY_API_KEY": SECRETS["mine"]}
    prompt = SECRETS["prompt"]
    bodies: list[Any] = [
        chat_body(prompt, "wrong-key"),
        chat_body(prompt, "wrong-key", stream=True),
        chat_body(prompt, "closed"),
        chat_body(prompt, "closed", stream=True),
        chat_body(prompt, "nobody"),
        chat_body(prompt, "good", n=prompt),
        chat_body(prompt, "good", inputs=prompt),
        chat_body(prompt, "good", messages=prompt),
        chat_body(prompt, "good", conversation_id=SECRETS["short"]),
        chat_body(f"{prompt} ERROR:auth", "good"),
        chat_body(f"{prompt} MIDERROR:auth", "good", stream=True),
        chat_body(f"{prompt} GARBAGE", "good", stream=True),
        chat_body(f"{prompt} ERROR:crash", "good"),
        chat_body(prompt, "good"),
    ]
    return [
        ("POST", "/v1/chat/completions", {"Authorization": f"Bearer {SECRETS['client']}x"}, bodies[0]),
        ("POST", "/v1/chat/completions", {"api-key": SECRETS["short"]}, bodies[0]),
        *(("POST", "/v1/chat/completions", client, body) for body in bodies),
        *(("POST", "/v1/chat/completions", mine, body) for body in bodies[:2]),
        ("POST", "/v1/completions", mine, {"model": "m", "prompt": prompt}),
        ("GET", "/v1/models", mine, None),
        ("GET", "/v1/models/nobody", client, None),
        ("GET", "/v1/none", {**client, **mine}, None),
        ("DELETE", "/v1/models", {**client, **mine}, None),
    ]


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_errors_and_logs_contain_no_key_and_no_message_text(
    program: Program, demo: DemoServer, http: httpx2.AsyncClient, log_format: str
) -> None:
    (program.directory / "config.toml").write_text(CONFIG.format(**SECRETS))
    env = {
        "DIFY_API_URL": demo.url,
        "API_KEYS": f"{SECRETS['client']},{SECRETS['short']}2",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": log_format,
    }
    with program.start("serve", "--port", "0", "--config", "config.toml", **env) as server:
        url = server.url().removesuffix("/v1")
        requests = _requests()
        bodies = []
        for method, path, headers, body in requests:
            reply = await http.request(method, f"{url}{path}", json=body, headers=headers)
            bodies.append((reply.status_code, reply.text))
        assert server.end(signal.SIGTERM) == 0
        logged = server.logged + "".join(server.said)
    assert logged.count("req_") >= len(requests)
    for name, secret in SECRETS.items():
        assert secret not in logged, name
        leaks = [text for status, text in bodies if secret in text and not (name == "prompt" and status == 200)]
        assert not leaks, name
