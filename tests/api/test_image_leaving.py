"""Nothing is made for nobody: what becomes of a prediction whose client leaves."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from PIL import Image

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.replicate import DemoReplicate, ReplicateLog, ReplicateTiming
from tests.api.picturing import SDXL, image_settings, png
from tests.api.servers import ProxyServer, demo_apps
from tests.api.sockets import Client

GENERATIONS = "/v1/images/generations"
IN_TIME = 2.0
"""Seconds from the later of the client's leaving and the answer that names the prediction."""


@pytest.fixture(scope="module")
def hasty() -> Iterator[DemoReplicate]:
    """A Replicate whose ``Prefer: wait`` is soon over."""
    with DemoReplicate(timing=ReplicateTiming(start=0, run=0, settle=0, second=0.05), faults=True) as running:
        yield running


@pytest.fixture(scope="module")
def hasty_proxy(
    demo: DemoServer, hasty: DemoReplicate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyServer]:
    settings = image_settings(
        hasty,
        tmp_path_factory.mktemp("pictures"),
        image_timeout=3600,  # Replicate's own deadline shall not come first
        enhance_prompt_app="demo-completion",
        image_upscaler="nightmareai/real-esrgan",
        first_event_grace=0.1,
    )
    with ProxyServer(Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), **settings)) as running:
        yield running


@pytest.fixture
def made(hasty: DemoReplicate) -> Iterator[ReplicateLog]:
    hasty.log.clear()
    yield hasty.log
    hasty.log.wait(lambda log: all(entry.completed_at for entry in log.predictions))
    hasty.log.wait(lambda log: log.open_requests == 0)
    assert not hasty.log.leaked_tokens


async def all_canceled(log: ReplicateLog, left: float, count: int = 1) -> None:
    """Every prediction was ended by a call, in time, and none was made twice."""
    await log.wait_for(lambda log: len(log.cancels) >= count and all(entry.completed_at for entry in log.predictions))
    assert [entry.status for entry in log.predictions] == ["canceled"] * count
    assert sorted(cancel.prediction_id for cancel in log.cancels) == sorted(entry.id for entry in log.predictions)
    assert all(cancel.effective and cancel.at <= left + IN_TIME for cancel in log.cancels)
    assert log.attempts() == count
    await log.wait_for(lambda log: log.open_requests == 0)


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_replicate_is_polled(
    hasty_proxy: ProxyServer, made: ReplicateLog, stream: bool, rudely: bool
) -> None:
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("SLOW:30", SDXL, size="64x64", stream=stream)
    await made.wait_for(lambda log: any(call.method == "GET" and "/predictions/" in call.path for call in log.calls))
    await all_canceled(made, await client.leave(rudely=rudely))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_the_creation_is_under_way(
    hasty_proxy: ProxyServer, made: ReplicateLog, stream: bool
) -> None:
    """Only its answer tells what there is to cancel."""
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("HOLD:1 SLOW:30", SDXL, size="64x64", stream=stream)
    await made.wait_for(lambda log: log.predictions)
    left = await client.leave()
    assert not made.cancels
    await all_canceled(made, left + 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_all_predictions_of_a_request_are_canceled(
    hasty_proxy: ProxyServer, made: ReplicateLog, stream: bool
) -> None:
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("SLOW:30", SDXL, size="64x64", n=10, stream=stream)
    await made.wait_for(lambda log: len(log.predictions) == 3)
    await all_canceled(made, await client.leave(), 3)


async def test_predictions_that_have_not_begun_never_do(hasty_proxy: ProxyServer, made: ReplicateLog) -> None:
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("SLOW:30", "black-forest-labs/flux-pro", size="256x256", n=10)
    await made.wait_for(lambda log: len(log.predictions) == 4)
    await all_canceled(made, await client.leave(), 4)


async def test_a_client_that_leaves_while_the_creation_is_throttled(
    hasty_proxy: ProxyServer, made: ReplicateLog
) -> None:
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("THROTTLE:header:1", SDXL, size="64x64")
    await made.wait_for(lambda log: log.attempts())
    await client.leave()
    await asyncio.sleep(1.5)  # that nothing comes can only be waited for
    assert (made.creations(), made.attempts()) == (0, 1)


async def test_a_client_that_leaves_while_its_picture_is_fetched(hasty_proxy: ProxyServer, made: ReplicateLog) -> None:
    """The prediction has ended by itself, so there is nothing to cancel."""
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("SETTLED SLOWBODY:30", SDXL, size="64x64")
    await made.wait_for(lambda log: log.downloads)
    await client.leave()
    await made.wait_for(lambda log: log.open_requests == 0)
    assert [entry.status for entry in made.predictions] == ["succeeded"]
    assert not made.cancels


async def test_a_client_that_leaves_while_its_picture_is_upscaled(hasty_proxy: ProxyServer, made: ReplicateLog) -> None:
    async with hasty_proxy.client(max_retries=0) as openai:
        asking = asyncio.create_task(upscaled(openai, "SETTLED UPSCALE<<SLOW:30>>"))
        await made.wait_for(lambda log: len(log.predictions) == 2)
        asking.cancel()
        left = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await made.wait_for(lambda log: log.cancels and log.predictions[1].completed_at)
    assert [entry.status for entry in made.predictions] == ["succeeded", "canceled"]
    assert [cancel.at <= left + IN_TIME for cancel in made.cancels] == [True]


async def upscaled(openai: AsyncOpenAI, prompt: str) -> None:
    headers = {"X-Replicate-Upscale": "yes"}
    await openai.images.generate(prompt=prompt, model=SDXL, size="64x64", extra_headers=headers)


async def test_a_client_that_leaves_while_its_prompt_is_enhanced(
    hasty_proxy: ProxyServer, made: ReplicateLog, log: DemoLog
) -> None:
    async with hasty_proxy.client(max_retries=0) as openai:
        asking = asyncio.create_task(
            openai.images.generate(prompt="SLOW:100x50", extra_headers={"X-Replicate-Enhance-Prompt": "yes"})
        )
        await log.wait_for(lambda log: log.runs and log.runs[0].first_event_at)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await log.wait_for(lambda log: log.stops and log.runs[0].state == "stopped")
    assert made.attempts() == 0


async def test_uploads_of_clients_that_leave_are_erased(hasty_proxy: ProxyServer, made: ReplicateLog) -> None:
    noise = png(Image.frombytes("RGB", (400, 250), secrets.token_bytes(300_000)))
    async with hasty_proxy.client(max_retries=0) as openai:
        asking = asyncio.create_task(
            openai.images.edit(image=noise, prompt="HOLD:0.5 SLOW:30", model=SDXL, size="64x64")
        )
        await made.wait_for(lambda log: log.predictions)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    # It fails by itself where the picture is gone before the model has read it, and is cancelled otherwise.
    await made.wait_for(lambda log: log.files[0].deleted and log.predictions[0].status in ("canceled", "failed"))


async def test_the_end_of_the_server_ends_predictions(
    demo: DemoServer, hasty: DemoReplicate, made: ReplicateLog, tmp_path: Path
) -> None:
    settings = image_settings(hasty, tmp_path, shutdown_grace=0.2, image_timeout=3600)
    with ProxyServer(Settings(**settings)) as proxy:
        clients = [Client(proxy.port, GENERATIONS) for _ in range(2)]
        for client, stream in zip(clients, (False, True), strict=True):
            await client.ask("SLOW:30", SDXL, size="64x64", stream=stream)
        await made.wait_for(lambda log: len(log.predictions) == 2)
        stopping = asyncio.create_task(asyncio.to_thread(proxy.__exit__, None, None, None))
        left = time.monotonic()
        await stopping
    await all_canceled(made, left + 1, 2)
    for client in clients:
        await client.leave()
