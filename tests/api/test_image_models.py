"""Image models: names, safety, prompt enhancement, upscaling, and access."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI, NotFoundError

from openai_dify_proxy.settings import ImageModelSettings, SecretStr, Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.conftest import Serve
from tests.api.image_requests import SCHNELL, SDXL, VERSIONS, Json, picture, post, sent, small
from tests.api.servers import ProxyServer, app_settings

# Safety.


async def test_the_safety_checker_can_be_disabled_only_if_settings_allow_it(
    image_client: AsyncOpenAI, serve_images: Serve, predictions: ReplicateLog
) -> None:
    off = {"X-Replicate-Safety-Checker": "no"}
    answer = await image_client.images.generate(**small("NSFW"), extra_headers=off)
    assert len(answer.data or []) == 1
    async with serve_images(allow_unsafe_images=False).client() as strict:
        loose: list[Json] = [{"extra_headers": off}, {"extra_body": {"input": {"disable_safety_checker": True}}}]
        for more in loose:
            with pytest.raises(APIStatusError) as refused:
                await strict.images.generate(**small("NSFW"), **more)
            assert refused.value.status_code == 400
            assert refused.value.param in ("X-Replicate-Safety-Checker", "input.disable_safety_checker")
        answer = await strict.images.generate(**small("A fox"), extra_headers={"X-Replicate-Safety-Checker": "yes"})
    assert predictions.creations() == 2


# Unsupported parameters.


@pytest.mark.parametrize("policy", ["reject", "warn", "drop"])
async def test_unsupported_headers_are_rejected_reported_or_dropped(
    http: httpx2.AsyncClient, serve_images: Serve, predictions: ReplicateLog, policy: str
) -> None:
    proxy = serve_images(unsupported_parameters=policy)
    extra = {"megapixels": "0.25", "caf\u00e9\n\u6f22": 1}
    body = {"prompt": "A fox SETTLED", "model": SCHNELL, "input": extra}
    reply = await post(http, f"{proxy.url}/images/generations", body, X_Replicate_Scheduler="DDIM")
    if policy == "reject":
        error = reply.json()["error"]
        assert (reply.status_code, error["param"], error["code"]) == (
            400,
            "X-Replicate-Scheduler",
            "unsupported_parameter",
        )
        assert "num_inference_steps" in error["message"]
        assert predictions.attempts() == 0
    else:
        assert reply.status_code == 200
        assert sent(predictions)[-1].keys() == {"prompt", "output_format", "megapixels"}
        unsupported = reply.headers.get("x-unsupported-parameters")
        assert unsupported == ("X-Replicate-Scheduler, input.caf???" if policy == "warn" else None)


# Enhancing and upscaling.


async def test_the_model_enhances_the_prompt_if_it_can(image_client: AsyncOpenAI, predictions: ReplicateLog) -> None:
    with pytest.raises(APIStatusError) as refused:
        await image_client.images.generate(
            prompt="CREDIT", model="black-forest-labs/flux-pro", extra_headers={"X-Replicate-Enhance-Prompt": "yes"}
        )
    assert refused.value.status_code == 429
    assert sent(predictions)[-1]["prompt_upsampling"] is True


async def test_an_app_enhances_the_prompt_once(serve_images: Serve, predictions: ReplicateLog, log: DemoLog) -> None:
    proxy = serve_images(enhance_prompt_app="demo-completion")
    async with proxy.client() as client:
        yes = await client.images.generate(**small("A fox"), n=6, extra_headers={"X-Replicate-Enhance-Prompt": "yes"})
        no = await client.images.generate(**small("A fox"), extra_headers={"X-Replicate-Enhance-Prompt": "no"})
    (revised,) = {image.revised_prompt for image in yes.data or []}
    assert revised is not None
    assert revised != "A fox SETTLED"
    prompts = [entry.prompt for entry in predictions.predictions]
    assert prompts == [revised, revised, "A fox SETTLED"]
    assert [image.revised_prompt for image in no.data or []] == [None]
    assert len(log.runs) == 1


async def test_a_failed_enhancement_creates_no_prediction(
    serve_images: Serve, predictions: ReplicateLog, demo: DemoServer
) -> None:
    apps = {"broken": app_settings("broken", "app-of-nobody", demo.url, mode="completion")}
    async with serve_images(enhance_prompt_app="broken", apps=apps).client() as client:
        with pytest.raises(APIStatusError) as refused:
            await client.images.generate(**small("A fox"), extra_headers={"X-Replicate-Enhance-Prompt": "yes"})
    assert refused.value.status_code >= 500
    assert predictions.attempts() == 0


UPSCALE = {"X-Replicate-Upscale": "yes", "X-Replicate-Upscale-Factor": "2"}


@pytest.mark.parametrize("upscaler", ["nightmareai/real-esrgan", "xinntao/realesrgan"])
async def test_a_second_prediction_upscales(serve_images: Serve, predictions: ReplicateLog, upscaler: str) -> None:
    proxy = serve_images(image_upscaler=upscaler)
    async with proxy.client() as client:
        answer = await client.images.generate(**small("UPSCALE<<SETTLED>>"), n=2, extra_headers=UPSCALE)
        usual = await client.images.generate(
            **small("UPSCALE<<SETTLED>>"), extra_headers={"X-Replicate-Upscale": "yes"}
        )
    assert [picture(image.b64_json).size for image in answer.data or []] == [(128, 128)] * 2
    _, *seconds = predictions.predictions
    assert [entry.model for entry in seconds[:2]] == [upscaler] * 2
    assert [entry.sent["scale"] for entry in seconds[:2]] == [2, 2]
    factor = {"nightmareai/real-esrgan": 4, "xinntao/realesrgan": 2}[upscaler]
    assert [picture(image.b64_json).size for image in usual.data or []] == [(64 * factor, 64 * factor)]
    assert "scale" not in predictions.predictions[-1].sent


async def test_upscaling_without_an_upscaler_is_rejected(image_client: AsyncOpenAI, predictions: ReplicateLog) -> None:
    with pytest.raises(APIStatusError) as refused:
        await image_client.images.generate(**small("A fox"), extra_headers=UPSCALE)
    assert (refused.value.status_code, refused.value.param) == (400, "X-Replicate-Upscale")
    assert predictions.attempts() == 0


@pytest.mark.parametrize(
    ("upscaler", "param"),
    [(SCHNELL, "X-Replicate-Upscale"), ("black-forest-labs/flux-kontext-pro", "X-Replicate-Upscale-Factor")],
)
async def test_an_unsuitable_upscaler_is_reported_before_any_prediction(
    serve_images: Serve, predictions: ReplicateLog, upscaler: str, param: str
) -> None:
    async with serve_images(image_upscaler=upscaler).client() as client:
        with pytest.raises(APIStatusError) as refused:
            await client.images.generate(**small("A fox"), extra_headers=UPSCALE)
    assert (refused.value.status_code, refused.value.param) == (400, param)
    assert predictions.attempts() == 0


async def test_a_failed_upscaler_is_an_error(serve_images: Serve, predictions: ReplicateLog) -> None:
    proxy = serve_images(image_upscaler="nightmareai/real-esrgan")
    async with proxy.client() as client:
        with pytest.raises(APIStatusError) as failed:
            await client.images.generate(**small("UPSCALE<<FAIL>>"), extra_headers=UPSCALE)
    assert (failed.value.status_code, failed.value.code) == (502, "prediction_failed")
    assert predictions.creations() == 2


# Models.

ALIASES = {
    "sketch": ImageModelSettings(
        name="sketch",
        model=SDXL,
        inputs={"num_inference_steps": 7, "width": 64, "height": 64},
        upscaler="xinntao/realesrgan",
    )
}

MODELS: list[tuple[str | None, str]] = [
    (None, "stability-ai/sdxl"),
    ("dall-e-2", "stability-ai/sdxl"),
    ("dall-e-3", "stability-ai/sdxl"),
    ("gpt-image-1", "stability-ai/sdxl"),
    ("stability-ai/sdxl", "stability-ai/sdxl"),
    (SDXL, "stability-ai/sdxl"),
    (SDXL.partition(":")[2], "stability-ai/sdxl"),
    (SCHNELL, SCHNELL),
    (f"{SCHNELL}:{VERSIONS[SCHNELL]}", SCHNELL),
    ("deployment:demo/schnell", f"{SCHNELL} by demo/schnell"),
    ("deployment:demo/sdxl", "stability-ai/sdxl by demo/sdxl"),
    ("openai/gpt-image-1", "openai/gpt-image-1"),
]


@pytest.mark.parametrize(("model", "served"), MODELS)
async def test_model_names_select_the_model(
    http: httpx2.AsyncClient,
    image_proxy: ProxyServer,
    predictions: ReplicateLog,
    model: str | None,
    served: str,
) -> None:
    reply = await post(http, f"{image_proxy.url}/images/generations", {"prompt": "FAIL", "model": model})
    assert reply.json()["error"]["code"] == "prediction_failed"
    (prediction,) = predictions.predictions
    deployment = f" by {prediction.deployment}" if prediction.deployment else ""
    assert prediction.model + deployment == served


@pytest.mark.parametrize(
    "model",
    ["gpt-4o", "nobody/nothing", f"{SCHNELL}:{'0' * 64}", "deployment:nobody/nothing", "a/b/c", "https://example.org"],
)
async def test_unknown_model_names_are_404(image_client: AsyncOpenAI, predictions: ReplicateLog, model: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        await image_client.images.generate(prompt="A fox", model=model)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert predictions.creations() == 0


async def test_aliases_set_model_inputs_and_upscaler(serve_images: Serve, predictions: ReplicateLog) -> None:
    async with serve_images(image_models=ALIASES, image_model="sketch").client() as client:
        body: Json = {"prompt": "A fox SETTLED", "extra_headers": {"X-Replicate-Upscale": "yes"}}
        answer = await client.images.generate(model="sketch", **body)
        assert [picture(image.b64_json).size for image in answer.data or []] == [(128, 128)]
        first, second = predictions.predictions
        assert (first.sent["num_inference_steps"], second.model) == (7, "xinntao/realesrgan")
        steps = {"X-Replicate-Num-Inference-Steps": "9"}
        await client.images.generate(model="dall-e-3", prompt="A fox SETTLED", extra_headers=steps)
        assert predictions.predictions[-1].sent["num_inference_steps"] == 9
        listed = [model.id async for model in client.models.list() if model.owned_by == "replicate"]
        assert listed == ["sketch"]
        assert (await client.models.retrieve("sketch")).owned_by == "replicate"


async def test_image_models_are_in_the_list_of_models(image_client: AsyncOpenAI) -> None:
    listed = {model.id: model.owned_by async for model in image_client.models.list()}
    assert listed["stability-ai/sdxl"] == "replicate"
    assert listed["demo-chat"] == "dify"
    assert (await image_client.models.retrieve("stability-ai/sdxl")).owned_by == "replicate"


# Access.


async def test_without_a_token_images_are_not_configured(tmp_path: Path, http: httpx2.AsyncClient) -> None:
    for storage in (tmp_path, tmp_path / "none"):
        with ProxyServer(Settings(image_storage_dir=str(storage))) as proxy:
            reply = await post(http, f"{proxy.url}/images/generations", {"prompt": "A fox"})
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (502, "images_not_configured")
            assert "REPLICATE_API_TOKEN" in error["message"]
            listed = (await http.get(f"{proxy.url}/models")).json()["data"]
            assert [model for model in listed if model["owned_by"] == "replicate"] == []


@pytest.mark.parametrize("path", ["generations", "edits", "variations"])
async def test_a_dify_key_gives_no_access_to_image_routes(
    http: httpx2.AsyncClient, serve_images: Serve, predictions: ReplicateLog, path: str
) -> None:
    proxy = serve_images(api_keys=(SecretStr("client-key"),))
    url = f"{proxy.url}/images/{path}"
    keys: list[dict[str, str]] = [
        {},
        {"DIFY-API-KEY": "app-demo-chat"},
        {"Authorization": "Bearer app-demo-chat"},
        {"Authorization": "Bearer client-keys"},
    ]
    for headers in keys:
        reply = await http.post(url, json=small("A fox"), headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key"), headers
    assert predictions.attempts() == 0
    both = {"Authorization": "Bearer client-key", "DIFY-API-KEY": "app-demo-chat"}
    reply = await http.post(url, json=small("CREDIT"), headers=both)
    assert reply.status_code == (429 if path == "generations" else 400)


async def test_web_pages_cannot_create_predictions(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    url = f"{image_proxy.url}/images/generations"
    plain = await http.post(url, content=b'{"prompt":"A fox"}', headers={"Content-Type": "text/plain"})
    form: Any = {"files": {"image": b"x"}, "headers": {"Origin": "https://evil.example"}}
    assert [plain.status_code, (await http.post(url, **form)).status_code] == [415, 415]
    assert predictions.attempts() == 0


# Schemas.


async def test_a_schema_is_cached(image_client: AsyncOpenAI, predictions: ReplicateLog, serve_images: Serve) -> None:
    async with serve_images().client() as client:
        for _ in range(3):
            with pytest.raises(APIStatusError):
                await client.images.generate(**small("CREDIT"))
    paths = [call.path for call in predictions.calls if call.method == "GET"]
    assert paths == [f"/v1/models/stability-ai/sdxl/versions/{VERSIONS['stability-ai/sdxl']}"]
