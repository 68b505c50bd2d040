"""Names of image models, and how often their schemas are loaded from Replicate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from openai_dify_proxy.errors import ModelNotFound, UpstreamMisconfigured
from openai_dify_proxy.images.models import FRESH_SECONDS, ImageModel, ImageModels
from openai_dify_proxy.settings import ImageModelSettings, Settings
from openai_dify_proxy.translate.replicate.known_models import KNOWN_MODELS, UNKNOWN_MODEL
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.upstream.replicate import ReplicateClient
from openai_dify_proxy_demo.replicate import DemoReplicate
from tests.limits import PATIENCE
from tests.upstream.raw_server import Answer, RawServer, Request, in_turn, raw_server, reply

VERSION = "c" * 64
STABLE_DIFFUSION = "stability-ai/stable-diffusion"
SDXL = ModelRef("stability-ai/sdxl")
ESRGAN = ModelRef("nightmareai/real-esrgan")


def model(*inputs: str, version: str = VERSION) -> dict[str, Any]:
    """Return Replicate's document of a model with these inputs."""
    properties = {name: {"type": "string", "x-order": order} for order, name in enumerate(inputs)}
    schema = {"components": {"schemas": {"Input": {"type": "object", "properties": properties}}}}
    return {"latest_version": {"id": version, "openapi_schema": schema}}


@dataclass
class Setup:
    """An ImageModels, its scripted Replicate and its clock."""

    models: ImageModels
    server: RawServer
    now: float = 1000.0

    async def names(self, ref: ModelRef) -> set[str]:
        return set((await self.models.inputs(ref)).fields)


@asynccontextmanager
async def scripted_models(answer: Answer, **settings: Any) -> AsyncIterator[Setup]:
    async with raw_server(answer) as server:
        client = ReplicateClient(f"{server.origin}/v1", "r8_onlyfortests", connect_timeout=PATIENCE)
        models = ImageModels(Settings(**settings), client, lambda: setup.now)
        setup = Setup(models, server)
        try:
            yield setup
        finally:
            await client.close()


@pytest.fixture
async def named() -> AsyncIterator[ImageModels]:
    """Return the models of an operator with some aliases."""
    settings = {
        "image_model": "black-forest-labs/flux-dev",
        "image_upscaler": "nightmareai/real-esrgan",
        "image_models": {
            "sketch": ImageModelSettings(
                name="sketch", model="black-forest-labs/flux-schnell", inputs={"go_fast": True}
            ),
            "dall-e-3": ImageModelSettings(name="dall-e-3", model="deployment:me/mine", upscaler="a/b"),
            "dark": ImageModelSettings(name="dark", model="stability-ai/sdxl", mask_repaints="black"),
            "light": ImageModelSettings(name="light", model=STABLE_DIFFUSION, mask_repaints="white"),
            "known": ImageModelSettings(name="known", model=STABLE_DIFFUSION),
        },
    }
    async with scripted_models(reply(500), **settings) as setup:
        yield setup.models


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        (None, ModelRef("black-forest-labs/flux-dev")),
        ("", ModelRef("black-forest-labs/flux-dev")),
        ("dall-e-2", ModelRef("black-forest-labs/flux-dev")),
        ("gpt-image-1", ModelRef("black-forest-labs/flux-dev")),
        ("gpt-image-2.5-mini", ModelRef("black-forest-labs/flux-dev")),
        ("chatgpt-image-latest", ModelRef("black-forest-labs/flux-dev")),
        ("stability-ai/sdxl", SDXL),
        (f"stability-ai/sdxl:{VERSION}", ModelRef("stability-ai/sdxl", VERSION)),
        (VERSION, ModelRef(version=VERSION)),
        ("deployment:demo/sdxl", ModelRef(deployment="demo/sdxl")),
    ],
)
async def test_names_of_models(named: ImageModels, name: str | None, ref: ModelRef) -> None:
    assert named.choose(name) == ImageModel(ref, {}, ESRGAN)


async def test_aliases_of_the_operator_come_first(named: ImageModels) -> None:
    assert named.choose("sketch") == ImageModel(ModelRef("black-forest-labs/flux-schnell"), {"go_fast": True}, ESRGAN)
    assert named.choose("dall-e-3") == ImageModel(ModelRef(deployment="me/mine"), {}, ModelRef("a/b"))
    assert named.listed == ["sketch", "dall-e-3", "dark", "light", "known", "black-forest-labs/flux-dev"]


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("stability-ai/sdxl", "white"),
        ("dark", "black"),
        (STABLE_DIFFUSION, "black"),
        (f"{STABLE_DIFFUSION}:{VERSION}", "black"),
        ("known", "black"),
        ("light", "white"),
    ],
)
async def test_the_colour_where_a_mask_repaints(named: ImageModels, name: str, colour: str) -> None:
    assert named.choose(name).mask_repaints == colour


@pytest.mark.parametrize(
    "name",
    ["sdxl", "a/b/c", "a/b:1", "../predictions", "a/..", "A b/c", "deployment:x", "c" * 63, "a/b?x", "a/b\n"],
)
async def test_names_that_are_not_models_are_rejected(named: ImageModels, name: str) -> None:
    with pytest.raises(ModelNotFound, match="owner/name") as caught:
        named.choose(name)
    assert caught.value.param == "model"
    assert "sketch" in caught.value.message
    assert ("Did you mean 'stability-ai/sdxl'?" in caught.value.message) == (name == "sdxl")


async def test_the_schema_of_a_name_is_loaded_again_after_some_minutes() -> None:
    async with scripted_models(in_turn(reply(200, model("one")), reply(200, model("two")))) as setup:
        assert [await setup.names(SDXL) for _ in range(3)] == [{"one"}] * 3
        setup.now += FRESH_SECONDS - 1
        assert await setup.names(SDXL) == {"one"}
        setup.now += 2
        assert await setup.names(SDXL) == {"two"}
    assert [request.target for request in setup.server.requests] == ["/v1/models/stability-ai/sdxl"] * 2


async def test_the_schema_of_a_version_is_never_loaded_again() -> None:
    ref = ModelRef("stability-ai/sdxl", VERSION)
    async with scripted_models(reply(200, model("one")["latest_version"])) as setup:
        assert await setup.names(ref) == {"one"}
        setup.now += 365 * 24 * 3600
        assert await setup.names(ref) == {"one"}
    assert [request.target for request in setup.server.requests] == [f"/v1/models/stability-ai/sdxl/versions/{VERSION}"]


async def test_a_version_without_a_schema_is_loaded_again() -> None:
    ref = ModelRef("stability-ai/sdxl", VERSION)
    async with scripted_models(
        in_turn(reply(200, {"id": VERSION}), reply(200, model("one")["latest_version"]))
    ) as setup:
        assert await setup.models.inputs(ref) == KNOWN_MODELS["stability-ai/sdxl"]
        setup.now += FRESH_SECONDS + 1
        assert await setup.names(ref) == {"one"}


async def test_concurrent_callers_share_one_request() -> None:
    """A cancelled caller does not cancel the request of the others."""
    go = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await reply(200, model("one"))(request, writer)

    async with scripted_models(slow) as setup:
        tasks = [asyncio.create_task(setup.names(SDXL)) for _ in range(10)]
        await setup.server.wait_for_requests(1)
        tasks[0].cancel()
        go.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert ended[1:] == [{"one"}] * 9
    assert len(setup.server.requests) == 1


async def test_without_replicate_the_built_in_table_is_used() -> None:
    async with scripted_models(reply(500)) as setup:
        known, unknown = await asyncio.gather(setup.models.inputs(SDXL), setup.models.inputs(ModelRef("some/body")))
        assert known == KNOWN_MODELS["stability-ai/sdxl"]
        assert unknown == UNKNOWN_MODEL
        requests = len(setup.server.requests)
        await setup.models.inputs(SDXL)
        assert len(setup.server.requests) > requests, "the next caller repeats a failed request"


async def test_without_replicate_the_stale_schema_is_used() -> None:
    async with scripted_models(in_turn(reply(200, model("one")), reply(503))) as setup:
        assert await setup.names(SDXL) == {"one"}
        setup.now += FRESH_SECONDS + 1
        assert await setup.names(SDXL) == {"one"}
        assert len(setup.server.requests) > 1


@pytest.mark.parametrize("body", [{"latest_version": None}, {"latest_version": {"id": VERSION}}, model()])
async def test_a_model_without_inputs(body: Any) -> None:
    async with scripted_models(reply(200, body)) as setup:
        assert await setup.models.inputs(SDXL) == KNOWN_MODELS["stability-ai/sdxl"]


@pytest.mark.parametrize(("status", "error"), [(404, ModelNotFound), (401, UpstreamMisconfigured)])
async def test_permanent_errors_are_raised(status: int, error: type[Exception]) -> None:
    async with scripted_models(reply(status, {"detail": "no"})) as setup:
        with pytest.raises(error):
            await setup.models.inputs(SDXL)


async def test_community_models_are_pinned_to_their_latest_version() -> None:
    """The pin applies to all callers, also to a creation by name that was already running."""
    async with scripted_models(in_turn(reply(200, model("one")), reply(200, model("one", version="d" * 64)))) as setup:
        models = setup.models
        assert models.pin(SDXL) is None, "its version is not known yet"
        await models.inputs(SDXL)
        assert models.target(SDXL) == SDXL
        pinned = ModelRef("stability-ai/sdxl", VERSION)
        assert [models.pin(SDXL) for _ in range(3)] == [pinned] * 3
        assert models.target(SDXL) == pinned
        assert models.pin(pinned) is None, "a rejected version does not exist"
        setup.now += FRESH_SECONDS + 1
        await models.inputs(SDXL)
        assert models.target(SDXL) == ModelRef("stability-ai/sdxl", "d" * 64)
        for other in (ModelRef(version=VERSION), ModelRef(deployment="a/b")):
            assert models.pin(other) is None
            assert models.target(other) == other


async def test_deployments_have_the_schema_of_their_model() -> None:
    with DemoReplicate() as demo:
        client = ReplicateClient(demo.url, demo.token, connect_timeout=PATIENCE)
        models = ImageModels(Settings(), client, lambda: 0.0)
        deployed = await models.inputs(ModelRef(deployment="demo/sdxl"))
        assert deployed == await models.inputs(SDXL)
        await client.close()
