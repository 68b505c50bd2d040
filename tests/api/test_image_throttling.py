"""Creations that Replicate answers with 429: they are retried after the requested delay, within limits."""

from __future__ import annotations

import time

import httpx2
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy_demo.replicate import ReplicateLog
from tests.api.conftest import Serve
from tests.api.image_requests import post, small
from tests.api.servers import ProxyServer


@pytest.mark.parametrize("delay", ["header:1x2", "body", "reset", "text"])
async def test_throttled_creations_are_retried_after_the_requested_delay(
    image_client: AsyncOpenAI, predictions: ReplicateLog, delay: str
) -> None:
    throttles = 2 if delay.endswith("x2") else 1
    began = time.monotonic()
    answer = await image_client.images.generate(**small(f"A fox THROTTLE:{delay}"))
    assert time.monotonic() - began >= throttles
    assert len(answer.data or []) == 1
    assert (predictions.creations(), predictions.attempts()) == (1, throttles + 1)


async def test_throttled_creations_without_a_delay_are_retried_after_five_seconds(
    image_client: AsyncOpenAI, predictions: ReplicateLog
) -> None:
    began = time.monotonic()
    await image_client.images.generate(**small("A fox THROTTLE:none"))
    assert time.monotonic() - began >= 5
    assert (predictions.creations(), predictions.attempts()) == (1, 2)


async def test_long_delays_are_forwarded_to_the_client(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog
) -> None:
    got = await post(http, f"{image_proxy.url}/images/generations", small("A fox THROTTLE:header:90"))
    assert (got.status_code, got.json()["error"]["code"], got.headers["retry-after"]) == (
        429,
        "rate_limit_exceeded",
        "90",
    )
    assert (predictions.creations(), predictions.attempts()) == (0, 1)


async def test_delays_of_zero_do_not_cause_a_retry_storm(
    http: httpx2.AsyncClient, serve_images: Serve, predictions: ReplicateLog
) -> None:
    proxy = serve_images(image_timeout=2)
    got = await post(http, f"{proxy.url}/images/generations", small("A fox THROTTLE:header:0x9999"))
    assert got.status_code in (429, 504)
    assert predictions.creations() == 0
    assert predictions.attempts() < 9


async def test_the_pictures_of_other_predictions_are_returned_if_one_fails(
    image_client: AsyncOpenAI, predictions: ReplicateLog
) -> None:
    """One of two predictions is throttled for longer than the limit."""
    answer = await image_client.images.generate(**small("Eight foxes THROTTLE:header:90"), n=8)
    assert len(answer.data or []) == 4
    assert (predictions.creations(), predictions.attempts()) == (1, 2)
