"""Chat requests to image models: an error that names the Images endpoint, even if a default app is configured."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2
import pytest

from openai_dify_proxy_demo import DemoLog
from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.chat_requests import chat_body, error_of, the_turn
from tests.api.conftest import Serve
from tests.api.servers import app_settings

NAMES = [
    "stability-ai/sdxl",
    "black-forest-labs/flux-schnell",
    "ideogram-ai/ideogram-v2",
    "dall-e-3",
    "gpt-image-1",
    "openai/gpt-image-1",
    "deployment:me/own",
]


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
async def test_an_image_model_is_rejected_before_dify_is_asked(
    serve_images: Serve, http: httpx2.AsyncClient, log: DemoLog, predictions: ReplicateLog, path: str
) -> None:
    proxy = serve_images(default_app="demo-chat")
    for name, stream in itertools.product(NAMES, (False, True)):
        body: dict[str, Any] = {**chat_body("hi", name, stream=stream), "prompt": "hi", "input": "hi"}
        reply = await http.post(f"{proxy.url}{path}", json=body)
        assert reply.status_code == 404
        error = error_of(reply)
        assert (error["param"], error["code"]) == ("model", "model_not_found")
        assert error["message"].startswith(f"'{name}' is an image model and does not chat.")
        assert "POST /v1/images/generations" in error["message"]
        assert (await http.get(f"{proxy.url}/models/{name}")).json()["owned_by"] == "replicate"
    assert not log.requests
    assert predictions.attempts() == 0


async def test_other_names_and_aliases_reach_their_app(
    serve_images: Serve, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    proxy = serve_images(default_app="demo-chat")
    for model, headers in (("meta-llama/llama-3", {}), ("dall-e-3", {"DIFY_API_KEY": "app-demo-chat"})):
        reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", model), headers=headers)
        assert reply.status_code == 200
        assert the_turn(log).key == "app-demo-chat"
        log.clear()


async def test_an_alias_outranks_an_image_model(serve_images: Serve, http: httpx2.AsyncClient, log: DemoLog) -> None:
    url = serve_images().settings.dify_api_url
    assert url is not None
    proxy = serve_images(apps={"artist": app_settings("artist", "app-demo-agent", url, aliases=("dall-e-*",))})
    assert (await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", "dall-e-3"))).status_code == 200
    assert the_turn(log).key == "app-demo-agent"
    assert (await http.get(f"{proxy.url}/models/dall-e-3")).json()["dify"]["alias_of"] == "artist"
