"""Authentication of clients, and the choice of the app and its Dify key."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pytest

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy.settings.sources import load_settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import ask, ask_streaming, chat_body, error_of, the_turn, turns
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer, app_settings, demo_apps

CLIENT_KEY = "sk-client-one-0123456789"
OTHER_KEY = "sk-client-two-0123456789"
DIFY_KEY_SPELLINGS = ["DIFY_API_KEY", "dify_api_key", "DIFY-API-KEY", "X-Dify-Api-Key"]
CLIENT_KEY_SPELLINGS = [
    {"Authorization": f"Bearer {CLIENT_KEY}"},
    {"Authorization": f"bearer {CLIENT_KEY}"},
    {"api-key": CLIENT_KEY},
    {"X-API-Key": CLIENT_KEY},
]


@pytest.fixture(scope="module")
def shared_guarded(demo: DemoServer) -> Iterator[ProxyServer]:
    keys = (SecretStr(CLIENT_KEY), SecretStr(OTHER_KEY))
    settings = Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), api_keys=keys, default_app="demo-chat")
    with ProxyServer(settings) as running:
        yield running


@pytest.fixture
def guarded(shared_guarded: ProxyServer, log: DemoLog) -> ProxyServer:
    """A proxy with client keys, apps and a default app."""
    return shared_guarded


@pytest.mark.parametrize("header", DIFY_KEY_SPELLINGS)
async def test_a_dify_key_in_a_header_selects_the_app_for_any_model_name(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, header: str
) -> None:
    reply = await http.post(
        f"{proxy.url}/chat/completions", json=chat_body("hi", "any-name"), headers={header: "app-demo-agent-chat"}
    )
    assert reply.status_code == 200
    assert reply.json()["model"] == "any-name"
    assert the_turn(log).key == "app-demo-agent-chat"


@pytest.mark.parametrize("header", DIFY_KEY_SPELLINGS)
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer  ", "BEARER "])
async def test_a_dify_key_header_may_hold_the_bearer_scheme(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, header: str, scheme: str
) -> None:
    headers = {header: f"{scheme}app-demo-agent-chat"}
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi"), headers=headers)
    assert reply.status_code == 200
    assert the_turn(log).key == "app-demo-agent-chat"


async def test_a_dify_key_as_bearer_token_selects_the_app(proxy: ProxyServer, log: DemoLog) -> None:
    async with proxy.client("app-demo-workflow@1.13") as client:
        assert "demo workflow app" in await ask_streaming(client, "gpt-4o", "hi")
    assert the_turn(log).key == "app-demo-workflow@1.13"


async def test_a_client_whose_dify_key_is_rejected_gets_a_401(proxy: ProxyServer) -> None:
    async with proxy.client("app-unknown-to-dify") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await ask(client, "gpt-4o", "hi")
    assert refused.value.code == "invalid_api_key"
    assert "app-unknown-to-dify" not in str(refused.value)


@pytest.mark.parametrize("key", ["app-a b", "app-\xe9clair"])
async def test_a_dify_key_with_characters_invalid_in_headers_is_rejected(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, key: str
) -> None:
    headers = [(b"dify_api_key", key.encode("latin-1"))]
    reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi"), headers=headers)
    assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
    assert not log.requests


@pytest.mark.parametrize(
    "headers", [{"DIFY_API_KEY": "app-demo-chat"}, {"Authorization": "Bearer app-demo-chat"}], ids=["header", "bearer"]
)
async def test_dify_keys_are_rejected_if_pass_through_is_off(
    serve: Serve, http: httpx2.AsyncClient, log: DemoLog, headers: dict[str, str]
) -> None:
    open_to_all = serve(passthrough_keys=False)
    reply = await http.post(f"{open_to_all.url}/chat/completions", json=chat_body("hi"), headers=headers)
    assert reply.status_code == 403
    assert error_of(reply)["type"] == "permission_error"
    keyed = serve(passthrough_keys=False, api_keys=(SecretStr(CLIENT_KEY),))
    reply = await http.post(f"{keyed.url}/chat/completions", json=chat_body("hi"), headers=headers)
    assert reply.status_code in (401, 403)
    error_of(reply)
    assert not turns(log)


@pytest.mark.parametrize("headers", CLIENT_KEY_SPELLINGS)
async def test_a_client_key_gives_access_to_the_configured_apps(
    guarded: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, headers: dict[str, str]
) -> None:
    reply = await http.post(f"{guarded.url}/chat/completions", json=chat_body("hi"), headers=headers)
    assert reply.status_code == 200
    assert the_turn(log).key == "app-demo-chat"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {CLIENT_KEY}x"},
        {"Authorization": f"Bearer {CLIENT_KEY[:-1]}"},
        {"Authorization": f"Basic {CLIENT_KEY}"},
        {"Authorization": CLIENT_KEY},
        {"Authorization": "Bearer"},
        {"api-key": ""},
        {"X-API-Key": CLIENT_KEY.upper()},
        {"DIFY_API_KEY": ""},
    ],
)
@pytest.mark.parametrize(
    "call", ["POST /chat/completions", "POST /completions", "GET /models", "GET /models/demo-chat"]
)
async def test_without_a_valid_client_key_dify_is_not_called(
    guarded: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, call: str, headers: dict[str, str]
) -> None:
    method, path = call.split()
    body = {**chat_body("hi"), "prompt": "hi"} if method == "POST" else None
    reply = await http.request(method, f"{guarded.url}{path}", json=body, headers=headers)
    assert reply.status_code == 401
    assert error_of(reply)["code"] == "invalid_api_key"
    assert reply.headers["www-authenticate"] == "Bearer"
    assert not log.requests


@pytest.mark.parametrize("key", [CLIENT_KEY, f"Basic {CLIENT_KEY}"])
async def test_a_client_key_without_bearer_is_explained(
    guarded: ProxyServer, http: httpx2.AsyncClient, key: str
) -> None:
    reply = await http.get(f"{guarded.url}/models", headers={"Authorization": key})
    assert reply.status_code == 401
    assert error_of(reply)["message"].startswith("The Authorization header must begin with 'Bearer '.")


async def test_a_dify_key_without_bearer_is_explained(serve: Serve, http: httpx2.AsyncClient, log: DemoLog) -> None:
    headers = {"Authorization": "app-demo-chat"}
    reply = await http.post(f"{serve().url}/chat/completions", json=chat_body("hi"), headers=headers)
    assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
    assert error_of(reply)["message"].startswith("The Authorization header must begin with 'Bearer '.")
    assert not log.requests


async def test_without_apps_and_a_dify_key_the_client_is_asked_for_one(serve: Serve, http: httpx2.AsyncClient) -> None:
    headers = {"Authorization": "Bearer any"}
    reply = await http.post(f"{serve(apps={}).url}/chat/completions", json=chat_body("hi"), headers=headers)
    assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")
    assert error_of(reply)["message"].endswith("Send a Dify key as the API key, or in the DIFY_API_KEY header.")


async def test_health_needs_no_key(guarded: ProxyServer, http: httpx2.AsyncClient) -> None:
    assert (await http.get(f"{guarded.origin}/health")).status_code == 200
    assert (await http.get(f"{guarded.origin}/ready")).status_code == 200


async def test_a_dify_key_takes_precedence_over_a_client_key(
    guarded: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    reply = await http.post(
        f"{guarded.url}/chat/completions",
        json=chat_body("hi"),
        headers={"DIFY_API_KEY": "app-demo-agent", "Authorization": f"Bearer {CLIENT_KEY}"},
    )
    assert reply.status_code == 200
    assert the_turn(log).key == "app-demo-agent"


async def test_a_dify_key_gives_access_only_to_its_own_app(
    guarded: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    """No model name gives the holder of a Dify key access to a configured app."""
    for model in ("demo-chat", "demo-workflow", "", "no-such-model"):
        for headers in ({"DIFY_API_KEY": "app-bogus"}, {"Authorization": "Bearer app-bogus"}):
            reply = await http.post(f"{guarded.url}/chat/completions", json=chat_body("hi", model), headers=headers)
            assert reply.status_code == 401
            reply = await http.get(f"{guarded.url}/models/{model}", headers=headers)
            assert reply.status_code == 401
    assert {request.key for request in log.requests} == {"app-bogus"}
    listed = await http.get(f"{guarded.url}/models", headers={"DIFY_API_KEY": "app-demo-agent"})
    assert len(listed.json()["data"]) == 1
    assert {request.key for request in log.requests} <= {"app-bogus", "app-demo-agent"}


async def test_different_keys_are_different_dify_users(guarded: ProxyServer, log: DemoLog) -> None:
    for key in (CLIENT_KEY, OTHER_KEY, CLIENT_KEY, "app-demo-chat"):
        async with guarded.client(key) as client:
            await ask(client, "demo-chat", "hi")
            await ask(client, "demo-chat", "hi", user="anna")
    users = [request.body["user"] for request in turns(log)]
    assert users[:2] == users[4:6]
    assert len(set(users)) == 6
    assert not any(part in name for name in users for part in ("anna", CLIENT_KEY, "demo-chat"))


# From model names to apps


async def test_a_model_name_selects_the_app_of_that_name(proxy: ProxyServer, log: DemoLog) -> None:
    async with proxy.client() as client:
        assert "demo completion app" in await ask(client, "demo-completion", "hi")
    assert the_turn(log).key == "app-demo-completion"


async def test_aliases_are_patterns_and_names_take_precedence(serve: Serve, demo: DemoServer, log: DemoLog) -> None:
    apps = {
        "support": app_settings("support", "app-demo-chat", demo.url, aliases=("gpt-4o*", "o?")),
        "gpt-4o-mini": app_settings("gpt-4o-mini", "app-demo-agent", demo.url),
    }
    proxy = serve(apps=apps)
    async with proxy.client() as client:
        for model in ("support", "gpt-4o", "gpt-4o-2024-08-06", "o3", "gpt-4o-mini"):
            await ask(client, model, "hi")
        with pytest.raises(openai.NotFoundError):
            await ask(client, "GPT-4O", "hi")
        with pytest.raises(openai.NotFoundError):
            await ask(client, "o33", "hi")
    assert [request.key for request in turns(log)] == ["app-demo-chat"] * 4 + ["app-demo-agent"]


async def test_an_unknown_model_is_a_404_that_lists_the_known_models(
    serve: Serve, demo: DemoServer, log: DemoLog
) -> None:
    apps = {name: app_settings(name, "app-demo-chat", demo.url) for name in ("sales", "support")}
    async with serve(apps=apps).client() as client:
        with pytest.raises(openai.NotFoundError) as missing:
            await ask(client, "marketing", "hi")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    for name in ("sales", "support", "marketing"):
        assert name in missing.value.message
    assert not log.requests


async def test_the_default_app_serves_unknown_models(serve: Serve, log: DemoLog) -> None:
    async with serve(default_app="demo-workflow").client() as client:
        completion = await client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hi"}])
    assert completion.model == "gpt-5"
    assert the_turn(log).key == "app-demo-workflow"


async def test_a_single_configured_dify_key_serves_every_model_name(
    demo: DemoServer, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    env = {"DIFY_API_URL": demo.url.removesuffix("/v1"), "DIFY_API_KEY": "app-demo-agent-chat"}
    with ProxyServer(load_settings(env=env, dotenv=None)) as proxy:
        async with proxy.client() as client:
            await ask(client, "gpt-3.5-turbo", "hi")
            assert [model.id async for model in client.models.list()] == ["dify"]
        nameless = chat_body("hi")
        del nameless["model"]
        assert (await http.post(f"{proxy.url}/chat/completions", json=nameless)).status_code == 200
    assert {request.key for request in log.requests} == {"app-demo-agent-chat"}


async def test_without_apps_the_404_explains_how_to_send_a_key(serve: Serve, log: DemoLog) -> None:
    proxy = serve(apps={})
    async with proxy.client() as client:
        with pytest.raises(openai.NotFoundError, match="DIFY_API_KEY"):
            await ask(client, "gpt-5", "hi")
        assert [model async for model in client.models.list()] == []
    async with proxy.client("app-demo-chat") as client:
        assert "demo chat app" in await ask(client, "gpt-5", "hi")


async def test_a_dify_key_of_a_configured_app_is_sent_to_that_apps_dify(
    serve: Serve, demo: DemoServer, log: DemoLog
) -> None:
    """No server listens at the general URL; only the app's own URL reaches Dify."""
    apps = {"support": app_settings("support", "app-demo-chat", demo.url)}
    proxy = serve(dify_api_url="http://127.0.0.1:9/v1", apps=apps)
    async with proxy.client("app-demo-chat") as client:
        assert "demo chat app" in await ask(client, "anything", "hi")
    async with proxy.client("app-demo-agent", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as unreachable:
            await ask(client, "anything", "hi")
    assert unreachable.value.code == "upstream_unreachable"


async def test_a_wrong_key_of_a_configured_app_is_not_disclosed_to_the_client(
    serve: Serve, demo: DemoServer, log: DemoLog
) -> None:
    apps = {"support": app_settings("support", "app-revoked-long-ago", demo.url)}
    async with serve(apps=apps).client() as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await ask(client, "support", "hi")
    assert (refused.value.status_code, refused.value.code) == (502, "upstream_misconfigured")
    assert "revoked" not in refused.value.message
    assert str(demo.port) not in refused.value.message
