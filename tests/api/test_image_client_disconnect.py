"""Predictions are canceled when their client disconnects."""

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
def short_wait() -> Iterator[DemoReplicate]:
    """A scripted Replicate whose ``Prefer: wait`` ends quickly."""
    with DemoReplicate(timing=ReplicateTiming(start=0, run=0, settle=0, second=0.05), faults=True) as running:
        yield running


@pytest.fixture(scope="module")
def short_wait_proxy(
    demo: DemoServer, short_wait: DemoReplicate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyServer]:
    settings = image_settings(
        short_wait,
        tmp_path_factory.mktemp("pictures"),
        image_timeout=3600,  # above the duration of the test, so that no deadline ends a prediction
        enhance_prompt_app="demo-completion",
        image_upscaler="nightmareai/real-esrgan",
        first_event_grace=0.1,
    )
    with ProxyServer(Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), **settings)) as running:
        yield running


@pytest.fixture
def predictions(short_wait: DemoReplicate) -> Iterator[ReplicateLog]:
    """The scripted Replicate's log of this test. At the end no prediction may be running and no token have leaked."""
    short_wait.log.clear()
    yield short_wait.log
    short_wait.log.wait(lambda log: all(entry.completed_at for entry in log.predictions))
    short_wait.log.wait(lambda log: log.open_requests == 0)
    assert not short_wait.log.leaked_tokens


async def all_canceled(log: ReplicateLog, count: int = 1) -> None:
    """Wait until all predictions are canceled, and assert that none was created twice."""
    await log.wait_for(lambda log: len(log.cancels) >= count and all(entry.completed_at for entry in log.predictions))
    assert [entry.status for entry in log.predictions] == ["canceled"] * count
    assert sorted(cancel.prediction_id for cancel in log.cancels) == sorted(entry.id for entry in log.predictions)
    assert all(cancel.effective for cancel in log.cancels)
    assert log.attempts() == count
    await log.wait_for(lambda log: log.open_requests == 0)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_during_polling_cancels_the_prediction(
    short_wait_proxy: ProxyServer, predictions: ReplicateLog, stream: bool, reset: bool
) -> None:
    client = Client(short_wait_proxy.port, GENERATIONS)
    await client.ask("SLOW:30", SDXL, size="64x64", stream=stream)
    await predictions.wait_for(
        lambda log: any(call.method == "GET" and "/predictions/" in call.path for call in log.calls)
    )
    await client.disconnect(reset=reset)
    await all_canceled(predictions)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_during_the_creation_cancels_the_prediction(
    short_wait_proxy: ProxyServer, predictions: ReplicateLog, stream: bool
) -> None:
    """The id for the cancellation is known only from the response to the creation."""
    client = Client(short_wait_proxy.port, GENERATIONS)
    await client.ask("HOLD:1 SLOW:30", SDXL, size="64x64", stream=stream)
    await predictions.wait_for(lambda log: log.predictions)
    await client.disconnect()
    await all_canceled(predictions)


@pytest.mark.parametrize("stream", [False, True])
async def test_all_predictions_of_a_request_are_canceled(
    short_wait_proxy: ProxyServer, predictions: ReplicateLog, stream: bool
) -> None:
    client = Client(short_wait_proxy.port, GENERATIONS)
    await client.ask("SLOW:30", SDXL, size="64x64", n=10, stream=stream)
    await predictions.wait_for(lambda log: len(log.predictions) == 3)
    await client.disconnect()
    await all_canceled(predictions, 3)


async def test_predictions_not_created_yet_are_never_created(
    short_wait_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    client = Client(short_wait_proxy.port, GENERATIONS)
    await client.ask("SLOW:30", "black-forest-labs/flux-pro", size="256x256", n=10)
    await predictions.wait_for(lambda log: len(log.predictions) == 4)
    await client.disconnect()
    await all_canceled(predictions, 4)


async def test_a_disconnect_during_throttling_creates_no_prediction(
    short_wait_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    client = Client(short_wait_proxy.port, GENERATIONS)
    with capture_logs() as logs:
        await client.ask("THROTTLE:header:25", SDXL, size="64x64")
        await predictions.wait_for(lambda log: log.attempts())
        await client.disconnect()
        await until(lambda: any(entry.get("status") == 499 for entry in logs))
    assert (predictions.creations(), predictions.attempts()) == (0, 1)


async def test_a_disconnect_during_the_download_cancels_nothing(
    short_wait_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    """The prediction has succeeded, so there is nothing to cancel."""
    client = Client(short_wait_proxy.port, GENERATIONS)
    await client.ask("SETTLED SLOWBODY:30", SDXL, size="64x64")
    await predictions.wait_for(lambda log: log.downloads)
    await client.disconnect()
    await predictions.wait_for(lambda log: log.open_requests == 0)
    assert [entry.status for entry in predictions.predictions] == ["succeeded"]
    assert not predictions.cancels


async def test_a_disconnect_during_upscaling_cancels_the_second_prediction(
    short_wait_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    async with short_wait_proxy.client(max_retries=0) as openai:
        request = asyncio.create_task(upscaled(openai, "SETTLED UPSCALE<<SLOW:30>>"))
        await predictions.wait_for(lambda log: len(log.predictions) == 2)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    await predictions.wait_for(lambda log: log.cancels and log.predictions[1].completed_at)
    assert [entry.status for entry in predictions.predictions] == ["succeeded", "canceled"]
    assert len(predictions.cancels) == 1


async def upscaled(openai: AsyncOpenAI, prompt: str) -> None:
    headers = {"X-Replicate-Upscale": "yes"}
    await openai.images.generate(prompt=prompt, model=SDXL, size="64x64", extra_headers=headers)


async def test_a_disconnect_during_prompt_enhancement_stops_the_run(
    short_wait_proxy: ProxyServer, predictions: ReplicateLog, log: DemoLog
) -> None:
    async with short_wait_proxy.client(max_retries=0) as openai:
        request = asyncio.create_task(
            openai.images.generate(prompt="SLOW:1000x100", extra_headers={"X-Replicate-Enhance-Prompt": "yes"})
        )
        await log.wait_for(lambda log: log.runs and log.runs[0].first_event_at)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    await log.wait_for(lambda log: log.stops and log.runs[0].state == "stopped")
    assert predictions.attempts() == 0


async def test_uploads_are_deleted_after_a_disconnect(short_wait_proxy: ProxyServer, predictions: ReplicateLog) -> None:
    noise = png(Image.frombytes("RGB", (400, 250), secrets.token_bytes(300_000)))
    async with short_wait_proxy.client(max_retries=0) as openai:
        request = asyncio.create_task(
            openai.images.edit(image=noise, prompt="HOLD:0.5 SLOW:30", model=SDXL, size="64x64")
        )
        await predictions.wait_for(lambda log: log.predictions)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    # The prediction fails if the picture is deleted before the model reads it, and is canceled otherwise.
    await predictions.wait_for(lambda log: log.files[0].deleted and log.predictions[0].status in ("canceled", "failed"))


async def test_a_shutdown_cancels_predictions(
    demo: DemoServer, short_wait: DemoReplicate, predictions: ReplicateLog, tmp_path: Path
) -> None:
    settings = image_settings(short_wait, tmp_path, shutdown_grace=0.2, image_timeout=3600)
    with ProxyServer(Settings(**settings)) as proxy:
        clients = [Client(proxy.port, GENERATIONS) for _ in range(2)]
        for client, stream in zip(clients, (False, True), strict=True):
            await client.ask("SLOW:30", SDXL, size="64x64", stream=stream)
        await predictions.wait_for(lambda log: len(log.predictions) == 2)
        stopping = asyncio.create_task(asyncio.to_thread(proxy.__exit__, None, None, None))
        await stopping
    await all_canceled(predictions, 2)
    for client in clients:
        await client.disconnect()
