"""Nothing is made for nobody: what becomes of a prediction whose client leaves."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from PIL import Image
from structlog.testing import capture_logs

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoLog, DemoServer
from openai_dify_proxy_demo.replicate import DemoReplicate, ReplicateLog, ReplicateTiming
from tests.api.image_requests import SDXL, image_settings, png
from tests.api.raw_client import Client, until
from tests.api.servers import ProxyServer, demo_apps

GENERATIONS = "/v1/images/generations"


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


async def all_canceled(log: ReplicateLog, count: int = 1) -> None:
    """Every prediction was ended by a call, and none was made twice."""
    await log.wait_for(lambda log: len(log.cancels) >= count and all(entry.completed_at for entry in log.predictions))
    assert [entry.status for entry in log.predictions] == ["canceled"] * count
    assert sorted(cancel.prediction_id for cancel in log.cancels) == sorted(entry.id for entry in log.predictions)
    assert all(cancel.effective for cancel in log.cancels)
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
    await client.disconnect(reset=rudely)
    await all_canceled(made)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_the_creation_is_under_way(
    hasty_proxy: ProxyServer, made: ReplicateLog, stream: bool
) -> None:
    """Only its answer tells what there is to cancel."""
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("HOLD:1 SLOW:30", SDXL, size="64x64", stream=stream)
    await made.wait_for(lambda log: log.predictions)
    await client.disconnect()
    await all_canceled(made)


@pytest.mark.parametrize("stream", [False, True])
async def test_all_predictions_of_a_request_are_canceled(
    hasty_proxy: ProxyServer, made: ReplicateLog, stream: bool
) -> None:
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("SLOW:30", SDXL, size="64x64", n=10, stream=stream)
    await made.wait_for(lambda log: len(log.predictions) == 3)
    await client.disconnect()
    await all_canceled(made, 3)


async def test_predictions_that_have_not_begun_never_do(hasty_proxy: ProxyServer, made: ReplicateLog) -> None:
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("SLOW:30", "black-forest-labs/flux-pro", size="256x256", n=10)
    await made.wait_for(lambda log: len(log.predictions) == 4)
    await client.disconnect()
    await all_canceled(made, 4)


async def test_a_client_that_leaves_while_the_creation_is_throttled(
    hasty_proxy: ProxyServer, made: ReplicateLog
) -> None:
    client = Client(hasty_proxy.port, GENERATIONS)
    with capture_logs() as logs:
        await client.ask("THROTTLE:header:25", SDXL, size="64x64")
        await made.wait_for(lambda log: log.attempts())
        await client.disconnect()
        await until(lambda: any(entry.get("status") == 499 for entry in logs))
    assert (made.creations(), made.attempts()) == (0, 1)


async def test_a_client_that_leaves_while_its_picture_is_fetched(hasty_proxy: ProxyServer, made: ReplicateLog) -> None:
    """The prediction has ended by itself, so there is nothing to cancel."""
    client = Client(hasty_proxy.port, GENERATIONS)
    await client.ask("SETTLED SLOWBODY:30", SDXL, size="64x64")
    await made.wait_for(lambda log: log.downloads)
    await client.disconnect()
    await made.wait_for(lambda log: log.open_requests == 0)
    assert [entry.status for entry in made.predictions] == ["succeeded"]
    assert not made.cancels


async def test_a_client_that_leaves_while_its_picture_is_upscaled(hasty_proxy: ProxyServer, made: ReplicateLog) -> None:
    async with hasty_proxy.client(max_retries=0) as openai:
        asking = asyncio.create_task(upscaled(openai, "SETTLED UPSCALE<<SLOW:30>>"))
        await made.wait_for(lambda log: len(log.predictions) == 2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await made.wait_for(lambda log: log.cancels and log.predictions[1].completed_at)
    assert [entry.status for entry in made.predictions] == ["succeeded", "canceled"]
    assert len(made.cancels) == 1


async def upscaled(openai: AsyncOpenAI, prompt: str) -> None:
    headers = {"X-Replicate-Upscale": "yes"}
    await openai.images.generate(prompt=prompt, model=SDXL, size="64x64", extra_headers=headers)


async def test_a_client_that_leaves_while_its_prompt_is_enhanced(
    hasty_proxy: ProxyServer, made: ReplicateLog, log: DemoLog
) -> None:
    async with hasty_proxy.client(max_retries=0) as openai:
        asking = asyncio.create_task(
            openai.images.generate(prompt="SLOW:1000x100", extra_headers={"X-Replicate-Enhance-Prompt": "yes"})
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
        await stopping
    await all_canceled(made, 2)
    for client in clients:
        await client.disconnect()
