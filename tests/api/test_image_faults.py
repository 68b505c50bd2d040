"""Failures of Replicate and of models: the error for the client, and that no prediction is paid for twice.

The tests use the official client because it retries twice where an error allows it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo.replicate import INSTANT, DemoReplicate, ReplicateLog
from tests.api.conftest import Serve
from tests.api.image_requests import SCHNELL, SDXL, VERSIONS, Json, image_settings, picture, post, sent, small
from tests.api.servers import ProxyServer


@dataclass(frozen=True)
class Outcome:
    """An error and its cost: the number of created predictions, and of calls to create one."""

    status: int
    code: str | None
    creations: int = 1
    calls: int = 1


FAULTS: dict[str, Outcome] = {
    # Replicate's API.
    "CREDIT": Outcome(429, "insufficient_quota", creations=0),
    "CRASH_BEFORE": Outcome(502, "upstream_error", creations=0),
    "CRASH_BEFORE:503": Outcome(502, "upstream_error", creations=0),
    "CRASH_AFTER": Outcome(502, "upstream_error"),
    "CRASH_AFTER:504": Outcome(502, "upstream_error"),
    "DROP": Outcome(502, "upstream_error"),
    "BADJSON": Outcome(502, "upstream_error"),
    # Models.
    "FAIL": Outcome(502, "prediction_failed"),
    "FAIL:PA": Outcome(502, "prediction_failed"),
    "FAIL:E1000": Outcome(502, "prediction_failed"),
    "NSFW": Outcome(400, "content_policy_violation"),
    "NSFW:all": Outcome(400, "content_policy_violation"),
    "NSFW:E005": Outcome(400, "content_policy_violation"),
    "ABORT": Outcome(504, "prediction_canceled"),
    "CANCELED": Outcome(504, "prediction_canceled"),
    "NULL SETTLED": Outcome(502, "no_picture"),
    "EMPTY SETTLED": Outcome(502, "no_picture"),
    # Outputs.
    "FOREIGN SETTLED": Outcome(502, "upstream_error"),
    "GONE SETTLED": Outcome(502, "upstream_error"),
    "REDIRECT_PRIVATE SETTLED": Outcome(502, "upstream_error"),
    "REDIRECT_LOOP SETTLED": Outcome(502, "upstream_error"),
    "CUTBODY SETTLED": Outcome(502, "upstream_error"),
    "HUGE SETTLED": Outcome(502, "upstream_error"),
    "ENDLESS SETTLED": Outcome(502, "upstream_error"),
    "NOTAPICTURE SETTLED": Outcome(502, "bad_picture"),
    "SVG SETTLED": Outcome(502, "bad_picture"),
    "TRUNCATED SETTLED": Outcome(502, "bad_picture"),
    "BOMB SETTLED": Outcome(502, "bad_picture"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults_cause_at_most_one_creation(
    image_client: AsyncOpenAI, predictions: ReplicateLog, image_proxy: ProxyServer, fault: str
) -> None:
    pictures = stored_pictures(image_proxy)
    with pytest.raises(APIStatusError) as refused:
        await image_client.images.generate(prompt=fault, model=SDXL, size="64x64")
    error = refused.value
    assert Outcome(error.status_code, error.code, predictions.creations(), predictions.attempts()) == FAULTS[fault]
    assert "r8_demo" not in error.response.text
    assert "billing" not in error.response.text
    assert stored_pictures(image_proxy) == pictures


def stored_pictures(proxy: ProxyServer) -> set[Path]:
    return set(Path(proxy.settings.image_storage_dir).rglob("*.png"))


HARMLESS = (
    *("HOLD:0.3", "COLD:0.2 SLOW:0.2", "POLLCRASH:1", "BADPOLL:1", "SETTLED", "PARTIAL"),
    *("SETTLED SLOWBODY:0.3", "SETTLED REDIRECT", "SETTLED OBJECT", "SETTLED MISLABEL", "SETTLED METADATA"),
    *("SETTLED DATAURI", "SETTLED FILE"),
)


@pytest.mark.parametrize("oddity", HARMLESS)
async def test_unusual_predictions_succeed(image_client: AsyncOpenAI, predictions: ReplicateLog, oddity: str) -> None:
    answer = await image_client.images.generate(prompt=oddity, model=SDXL, size="64x64")
    (image,) = answer.data or []
    made = picture(image.b64_json)
    assert (made.format, made.size) == ("PNG", (64, 64))
    assert not {"prompt", "workflow"} & set(made.info)
    assert (predictions.creations(), predictions.attempts()) == (1, 1)


@pytest.mark.parametrize("fault", ["DROP", "CRASH_AFTER", "BADJSON", "NULL SETTLED", "BOMB SETTLED"])
async def test_faults_of_streams_cause_at_most_one_creation(
    image_client: AsyncOpenAI, predictions: ReplicateLog, fault: str
) -> None:
    with pytest.raises(APIStatusError) as refused:
        await image_client.images.generate(prompt=fault, model=SDXL, size="64x64", stream=True)
    assert refused.value.status_code == FAULTS[fault].status
    assert (predictions.creations(), predictions.attempts()) == (1, 1)


# Errors from Replicate.


async def test_an_input_rejected_by_replicate_is_reported_by_its_header(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    """The schema of a version cannot be retrieved without the model's name, so only Replicate validates the inputs."""
    body = {"prompt": "A fox", "model": VERSIONS[SCHNELL]}
    reply = await post(http, f"{image_proxy.url}/images/generations", body, X_Replicate_Num_Inference_Steps="50")
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "X-Replicate-Num-Inference-Steps")
    assert "less than or equal to 4" in error["message"]
    assert (predictions.creations(), predictions.attempts()) == (0, 1)


async def test_a_wrong_token_is_a_server_error(tmp_path: Path) -> None:
    with DemoReplicate(timing=INSTANT, token="r8_other") as replicate:
        settings = image_settings(replicate, tmp_path) | {"replicate_api_token": SecretStr("r8_demo_wrong")}
        with ProxyServer(Settings(**settings)) as proxy:
            async with proxy.client() as client:
                with pytest.raises(APIStatusError) as refused:
                    await client.images.generate(prompt="A fox")
        assert (refused.value.status_code, refused.value.code) == (502, "upstream_auth_error")
        assert "r8_" not in refused.value.response.text
        assert replicate.log.attempts() == 0


async def test_an_unreachable_replicate_is_a_503(serve_images: Serve, predictions: ReplicateLog) -> None:
    async with serve_images(replicate_api_url="http://127.0.0.1:9/v1").client(max_retries=0) as client:
        with pytest.raises(APIStatusError) as refused:
            await client.images.generate(**small("A fox"))
    assert (refused.value.status_code, refused.value.code) == (503, "upstream_unreachable")
    assert predictions.attempts() == 0


async def test_equal_simultaneous_pictures_have_one_url(image_client: AsyncOpenAI, image_proxy: ProxyServer) -> None:
    body: Json = {**small("Twins"), "response_format": "url", "extra_body": {"seed": 3}}
    answers = await asyncio.gather(*(image_client.images.generate(**body) for _ in range(6)))
    assert len({image.url for answer in answers for image in answer.data or []}) == 1


async def test_a_request_has_a_time_limit(serve_images: Serve, predictions: ReplicateLog) -> None:
    proxy = serve_images(image_timeout=5)
    async with proxy.client() as client:
        with pytest.raises(APIStatusError) as refused:
            await client.images.generate(prompt="PARTIAL SLOW:60", model=SDXL, size="64x64", n=4)
    assert (refused.value.status_code, refused.value.code) == (504, "upstream_timeout")
    await predictions.wait_for(lambda log: log.predictions[0].completed_at)
    (prediction,) = predictions.predictions
    assert (prediction.status, prediction.cancel_after) == ("canceled", "15s")
    assert (predictions.attempts(), [cancel.effective for cancel in predictions.cancels]) == (1, [True])


async def test_a_prediction_whose_polling_fails_is_not_created_again(
    serve_images: Serve, predictions: ReplicateLog
) -> None:
    async with serve_images(image_timeout=5).client() as client:
        with pytest.raises(APIStatusError) as refused:
            await client.images.generate(prompt="POLLCRASH:999", model=SDXL, size="64x64")
    assert refused.value.status_code in (502, 504)
    assert (predictions.creations(), predictions.attempts()) == (1, 1)


async def test_a_lost_prediction_is_not_created_again(
    image_client: AsyncOpenAI, replicate: DemoReplicate, predictions: ReplicateLog
) -> None:
    """A 404 to a creation can mean an unofficial model, which justifies a second creation. A 404 to a poll does not."""
    request = asyncio.create_task(
        image_client.images.generate(prompt="PARTIAL SLOW:2", model="stability-ai/sdxl", size="64x64", n=4)
    )
    await predictions.wait_for(lambda log: log.predictions and log.predictions[0].outputs)
    lost = dict(replicate.state.predictions)
    replicate.state.predictions.clear()
    with pytest.raises(APIStatusError) as refused:
        await request
    assert (refused.value.status_code, predictions.creations()) == (502, 1)
    replicate.state.predictions.update(lost)


def secrets_in(value: Any) -> bool:
    return "r8_" in str(value)


async def test_the_token_is_sent_only_to_the_api(image_client: AsyncOpenAI, predictions: ReplicateLog) -> None:
    """``predictions`` checks for leaks after each test. These outputs are typical causes of leaks."""
    for prompt in ("SETTLED", "SETTLED REDIRECT", "SETTLED FILE", "SETTLED OBJECT"):
        await image_client.images.generate(prompt=prompt, model=SDXL, size="64x64")
    assert len(predictions.downloads) == 4
    assert not predictions.leaked_tokens
    assert not any(secrets_in(inputs) for inputs in sent(predictions))
