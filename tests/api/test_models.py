"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

import httpx2
import openai
import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.errors import SEE_LOG
from openai_dify_proxy_demo import DEMO_APPS, DemoLog, DemoServer
from tests.api.chat_requests import MODES, ask
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer, app_settings


@pytest.fixture
def small(serve: Serve, demo: DemoServer) -> ProxyServer:
    """A proxy with one app of each mode, and one whose name has a slash and a colon."""
    apps = {app.name: app_settings(app.name, app.key, demo.url) for app in DEMO_APPS}
    apps["team/support:v2"] = app_settings("team/support:v2", "app-demo-chat-topic", demo.url, aliases=("gpt-*",))
    return serve(apps=apps)


async def test_the_list_has_every_configured_app_with_its_description_from_dify(small: ProxyServer) -> None:
    async with small.client() as client:
        page = await client.models.list()
    assert page.object == "list"
    assert [model.id for model in page.data] == [*MODES, "team/support:v2"]
    for model in page.data:
        assert (model.object, model.owned_by) == ("model", "dify")
        assert type(model.created) is int
        assert model.created > 1_700_000_000
    known = {model.id: (model.model_extra or {})["dify"] for model in page.data}
    assert {app.name: app.mode for app in DEMO_APPS} == {name: known[name]["mode"] for name in MODES}
    assert known["demo-chat"]["name"] == "demo-chat"
    assert known["demo-chat"]["description"] == "A chat app that repeats each message."
    assert known["demo-chat"]["opening_statement"]
    assert known["demo-chat"]["suggested_questions"][0] == "What can you do?"
    assert not {"opening_statement", "suggested_questions"} & set(known["demo-workflow"])
    topic = known["team/support:v2"]
    assert topic["aliases"] == ["gpt-*"]
    assert [(field["name"], field["required"]) for field in topic["inputs"]] == [
        ("topic", True),
        ("system_prompt", False),
    ]


async def test_an_id_may_contain_slashes(small: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    for prefix in (small.url, small.origin):
        for name in ("team/support:v2", "team%2Fsupport%3Av2"):
            reply = await http.get(f"{prefix}/models/{name}")
            assert reply.status_code == 200
            assert reply.json()["id"] == "team/support:v2"
    async with small.client() as client:
        assert (await client.models.retrieve("demo-agent")).id == "demo-agent"
        await ask(client, "team/support:v2", "hi", extra_body={"inputs": {"topic": "sea"}})


async def test_an_alias_is_returned_under_the_requested_name(small: ProxyServer) -> None:
    async with small.client() as client:
        model = await client.models.retrieve("gpt-5")
    assert model.id == "gpt-5"
    assert (model.model_extra or {})["dify"]["alias_of"] == "team/support:v2"


@pytest.mark.parametrize("reachable", [True, False])
async def test_a_name_that_the_default_app_serves_is_marked_as_its_alias(
    serve: Serve, demo: DemoServer, http: httpx2.AsyncClient, reachable: bool
) -> None:
    url = demo.url if reachable else "http://127.0.0.1:9/v1"
    apps = {"support": app_settings("support", "app-demo-chat", url)}
    proxy = serve(dify_api_url=url, apps=apps, default_app="support")
    model = (await http.get(f"{proxy.url}/models/anything/at:all")).json()
    assert (model["id"], model["owned_by"], model["dify"]["alias_of"]) == ("anything/at:all", "dify", "support")
    assert model["dify"].get("mode") == ("chat" if reachable else None)
    own = (await http.get(f"{proxy.url}/models/support")).json()
    assert "alias_of" not in own.get("dify", {})
    assert [each["id"] for each in (await http.get(f"{proxy.url}/models")).json()["data"]] == ["support"]


@pytest.mark.parametrize("path", ["/models/", "/models//"])
async def test_trailing_slashes_are_ignored(small: ProxyServer, http: httpx2.AsyncClient, path: str) -> None:
    reply = await http.get(f"{small.url}{path}")
    assert reply.json() == (await http.get(f"{small.url}/models")).json()
    assert (await http.get(f"{small.url}/models/demo-chat/")).json()["id"] == "demo-chat"


async def test_an_unknown_id_is_a_404(small: ProxyServer) -> None:
    async with small.client() as client:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.models.retrieve("team/nobody")
    assert missing.value.code == "model_not_found"
    assert "team/support:v2" in missing.value.message


async def test_with_a_dify_key_the_list_has_only_its_app(small: ProxyServer, log: DemoLog) -> None:
    async with small.client("app-demo-workflow-form") as client:
        (model,) = (await client.models.list()).data
        assert (model.model_extra or {})["dify"]["mode"] == "workflow"
        keyed = await client.models.retrieve("any/name")
        assert keyed.id == "any/name"
        assert "alias_of" not in (keyed.model_extra or {})["dify"]
    assert {request.key for request in log.requests} == {"app-demo-workflow-form"}


async def test_with_an_invalid_dify_key_the_list_is_a_401(small: ProxyServer) -> None:
    async with small.client("app-nobody") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_apps_are_listed_while_dify_is_unreachable(serve: Serve, http: httpx2.AsyncClient) -> None:
    url = "http://127.0.0.1:9/v1"
    proxy = serve(dify_api_url=url, apps={"support": app_settings("support", "app-demo-chat", url)})
    reply = await http.get(f"{proxy.url}/models")
    assert [model["id"] for model in reply.json()["data"]] == ["support"]
    assert (await http.get(f"{proxy.origin}/health")).status_code == 200
    with capture_logs() as logs:
        reply = await http.get(f"{proxy.origin}/ready")
        await http.get(f"{proxy.origin}/ready")
    assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
    assert reply.json()["problems"] == [f"Dify cannot be reached. {SEE_LOG}"]
    (entry,) = [entry for entry in logs if entry["event"] == "readiness_check_failed"]
    assert entry["url"] == url
    assert entry["detail"].startswith("Dify at 127.0.0.1:9 refused the connection.")


async def test_the_description_of_an_app_is_cached(small: ProxyServer, log: DemoLog) -> None:
    async with small.client() as client:
        for _ in range(2):
            await client.models.list()
        await ask(client, "demo-chat", "hi")
    paths = [request.path for request in log.requests if request.app == "demo-chat"]
    assert sorted(paths) == ["/v1/chat-messages", "/v1/info", "/v1/parameters"]
