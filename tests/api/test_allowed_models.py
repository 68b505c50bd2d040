"""Keys that may use some models only, on every endpoint that takes a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import ClientKeySettings, ImageModelSettings, SecretStr
from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.chat_requests import chat_body, error_of
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer, app_settings

KEY, ALL, ALIASED = "sk-some-models-0123456789", "sk-all-models-0123456789", "sk-an-alias-0123456789"
ALLOWED = ("demo-chat", "black-forest-labs/*", "mine")


def keys() -> dict[str, ClientKeySettings]:
    def key(name: str, secret: str, models: tuple[str, ...] | None) -> ClientKeySettings:
        return ClientKeySettings(name=name, key=SecretStr(secret), models=models)

    return {
        "some": key("some", KEY, ALLOWED),
        "all": key("all", ALL, None),
        "alias": key("alias", ALIASED, ("fast", "gpt-*")),
    }


@pytest.fixture
def proxy(serve_images: Serve, demo: DemoServer, log: DemoLog) -> ProxyServer:
    apps = {
        "demo-chat": app_settings("demo-chat", "app-demo-chat", demo.url, aliases=("gpt-4*",)),
        "demo-workflow": app_settings("demo-workflow", "app-demo-workflow", demo.url, aliases=("fast", "gpt-5*")),
    }
    mine = ImageModelSettings(name="mine", model="stability-ai/sdxl")
    return serve_images(apps=apps, keys=keys(), default_app="demo-workflow", image_models={"mine": mine})


def of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def names(proxy: ProxyServer, http: httpx2.AsyncClient, key: str) -> list[str]:
    reply = await http.get(f"{proxy.url}/models", headers=of(key))
    return [model["id"] for model in reply.json()["data"]]


async def test_only_allowed_models_are_listed(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    assert await names(proxy, http, ALL) == ["demo-chat", "demo-workflow", "mine", "stability-ai/sdxl"]
    assert await names(proxy, http, KEY) == ["demo-chat", "mine"]
    assert await names(proxy, http, ALIASED) == ["fast"]
    spoken = await http.get(f"{proxy.url}/audio/models", headers=of(KEY))
    assert "demo-workflow" not in [model["id"] for model in spoken.json()["models"]]


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        (KEY, "demo-chat", 200),
        (KEY, "gpt-4o", 200),
        (KEY, "mine", 200),
        (KEY, "black-forest-labs/flux-schnell", 200),
        (KEY, "demo-workflow", 404),
        (KEY, "gpt-5", 404),
        (KEY, "anything", 404),
        (KEY, "stability-ai/sdxl", 404),
        (KEY, "dall-e-3", 404),
        (ALIASED, "fast", 200),
        (ALIASED, "gpt-5", 200),
        (ALIASED, "demo-workflow", 404),
        (ALIASED, "gpt-3.5-turbo", 404),
        (ALL, "anything", 200),
    ],
)
async def test_another_model_does_not_exist_for_the_key(
    proxy: ProxyServer, http: httpx2.AsyncClient, key: str, model: str, status: int
) -> None:
    """A name that only the default app answers is allowed only with the default app itself."""
    reply = await http.get(f"{proxy.url}/models/{model}", headers=of(key))
    assert reply.status_code == status
    if status == 404:
        assert error_of(reply)["code"] == "model_not_found"


SPEECH = {"input": "hi", "voice": "alloy"}
Call = tuple[str, Mapping[str, Any]]
CALLS: list[Call] = [
    ("chat/completions", chat_body("hi")),
    ("completions", {"prompt": "hi"}),
    ("responses", {"input": "hi"}),
    ("responses", {"input": "hi", "background": True}),
    ("responses/input_tokens", {"input": "hi"}),
    ("audio/speech", SPEECH),
    ("images/generations", {"prompt": "a fox"}),
    ("feedback", {"message_id": "0b6e1c2e-0000-4000-8000-000000000000", "rating": "like"}),
]


@pytest.mark.parametrize("call", CALLS, ids=[f"{path}-{number}" for number, (path, _) in enumerate(CALLS)])
async def test_another_model_gets_a_403_that_names_the_allowed_ones(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, predictions: ReplicateLog, call: Call
) -> None:
    path, body = call
    model = "stability-ai/sdxl" if "images" in path else "demo-workflow"
    reply = await http.post(f"{proxy.url}/{path}", json={**body, "model": model}, headers=of(KEY))
    assert reply.status_code == 403
    error = error_of(reply)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert error["message"].startswith("Your API key does not have access to the ")
    assert "demo-workflow, " not in error["message"]
    assert not log.runs
    assert not predictions.predictions


@pytest.mark.parametrize("body", [{}, {"model": "unknown"}, {"model": "gpt-5"}])
async def test_the_default_app_is_not_a_way_around(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, body: dict[str, str]
) -> None:
    request = {**chat_body("hi"), **body}
    if not body:
        del request["model"]
    reply = await http.post(f"{proxy.url}/chat/completions", json=request, headers=of(KEY))
    assert reply.status_code == 403
    assert not log.runs


async def test_forms_are_checked_too(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    sound = {"file": ("a.wav", b"RIFF0000WAVE", "audio/wav")}
    reply = await http.post(
        f"{proxy.url}/audio/transcriptions", data={"model": "demo-workflow"}, files=sound, headers=of(KEY)
    )
    assert reply.status_code == 403


async def test_allowed_models_work(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, predictions: ReplicateLog
) -> None:
    for model in ("demo-chat", "gpt-4o"):
        reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", model), headers=of(KEY))
        assert reply.status_code == 200
    for model in ("mine", "black-forest-labs/flux-schnell"):
        body = {"prompt": "a fox", "model": model}
        reply = await http.post(f"{proxy.url}/images/generations", json=body, headers=of(KEY))
        assert reply.status_code == 200, reply.text
