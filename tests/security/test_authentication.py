"""Every route with every kind of missing, wrong, misplaced or foreign key: rejected, and no upstream is called."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from openai_dify_proxy.app import ROUTES
from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import error_of
from tests.api.servers import ProxyServer, demo_apps

KEY = "sk-client-one-0123456789"
DIFY_KEY = "app-demo-chat"

PUBLIC = {
    "/health",
    "/ready",
    "/openapi.json",
    "/pictures/{name}",
    "/artifacts/{name}",
    "/v1/audio/models",
    "/v1/audio/voices",
}
"""The last two list fixed names, and Open WebUI sends no key with them."""
GUARDED = [(method, path) for method, path, _ in ROUTES if path not in PUBLIC]
SPENDING = [(method, path) for method, path in GUARDED if path.startswith("/v1/images/")]
"""Routes that spend a credential of the server's, which no Dify key authorizes."""

BODY = {
    "model": "demo-chat",
    "messages": [{"role": "user", "content": "Hi"}],
    "input": "Hi",
    "prompt": "Hi",
    "api_key": KEY,
    "metadata": {"authorization": f"Bearer {KEY}"},
}

Headers = list[tuple[str, str]]

VARIANTS: dict[str, Headers] = {
    "no key": [],
    "another key": [("Authorization", "Bearer wrong")],
    "the begin of a key": [("Authorization", f"Bearer {KEY[:-1]}")],
    "a longer key": [("Authorization", f"Bearer {KEY}x")],
    "two keys in one": [("Authorization", f"Bearer {KEY},{KEY}")],
    "a key in other letters": [("Authorization", f"Bearer {KEY.upper()}")],
    "an empty header": [("Authorization", "")],
    "a scheme alone": [("Authorization", "Bearer")],
    "a key without a scheme": [("Authorization", KEY)],
    "another scheme": [("Authorization", f"Basic {KEY}")],
    "two schemes": [("Authorization", f"Bearer Bearer {KEY}")],
    "empty key headers": [("api-key", ""), ("x-api-key", "")],
    "a wrong key header": [("x-api-key", f"{KEY}x")],
    "an empty Dify key": [("DIFY_API_KEY", "")],
    "a cookie": [("Cookie", f"api_key={KEY}; Authorization=Bearer {KEY}")],
    "proxy authorization": [("Proxy-Authorization", f"Bearer {KEY}")],
    "a forwarded header": [("X-Forwarded-Authorization", f"Bearer {KEY}"), ("X-Original-Authorization", KEY)],
    "forwarded from here": [("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("Host", "localhost")],
    "another method": [("X-HTTP-Method-Override", "GET"), ("X-Original-URL", "/health")],
}


@pytest.fixture(scope="module")
def shared_guarded(demo: DemoServer) -> Iterator[ProxyServer]:
    settings = Settings(
        dify_api_url=demo.url,
        apps=demo_apps(demo.url),
        api_keys=(SecretStr(KEY),),
        default_app="demo-chat",
        replicate_api_token=SecretStr("r8_unused"),
        replicate_api_url="http://127.0.0.1:9",
    )
    with ProxyServer(settings) as running:
        yield running


@pytest.fixture
def guarded(shared_guarded: ProxyServer, log: DemoLog) -> ProxyServer:
    return shared_guarded


async def call(
    http: httpx2.AsyncClient, guarded: ProxyServer, route: tuple[str, str], headers: Headers, query: str = ""
) -> httpx2.Response:
    method, path = route
    for name in ("response_id", "conversation_id", "model:path"):
        path = path.replace(f"{{{name}}}", f"demo-chat_{'0' * 48}")
    body = BODY if method == "POST" else None
    return await http.request(method, f"{guarded.origin}{path}{query}", json=body, headers=headers)


def test_the_routes_are_those_of_the_app() -> None:
    assert len(GUARDED) >= 17
    assert len(SPENDING) == 3


@pytest.mark.parametrize("headers", VARIANTS.values(), ids=VARIANTS)
async def test_no_route_accepts_a_request_without_a_valid_key(
    guarded: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, headers: Headers
) -> None:
    for route in GUARDED:
        for query in ("", f"?api_key={KEY}&key={KEY}&access_token={KEY}"):
            reply = await call(http, guarded, route, headers, query)
            assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key"), route
            assert KEY not in reply.text
    assert not log.requests


async def test_two_different_keys_are_ambiguous(guarded: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    """A proxy before this one may have checked the other."""
    pairs = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")], [("api-key", KEY), ("api-key", "x")]
    for headers in (*pairs, *(pair[::-1] for pair in pairs)):
        for route in GUARDED:
            reply = await call(http, guarded, route, headers)
            assert reply.status_code == 400, route
            error_of(reply)
    assert not log.requests


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {DIFY_KEY}")],
        [("DIFY_API_KEY", DIFY_KEY)],
        [("X-Dify-Api-Key", DIFY_KEY), ("Authorization", "Bearer wrong")],
        [("X-Dify-Api-Key", f"Bearer {DIFY_KEY}"), ("api-key", "wrong")],
    ],
)
async def test_a_dify_key_spends_no_credential_of_the_server(
    guarded: ProxyServer, http: httpx2.AsyncClient, headers: Headers
) -> None:
    for route in SPENDING:
        reply = await call(http, guarded, route, headers)
        assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key"), route
