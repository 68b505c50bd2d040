"""Fifteen headers with every model of the scripted Replicate: their inputs, and the errors for invalid values."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from openai_dify_proxy_demo.replicate import DEMO_MODELS, DemoModel, DemoReplicate, ReplicateLog
from tests.api.header_table import ILLEGAL, INIT, LEGAL, PICTURE, markdown, title
from tests.api.image_requests import post
from tests.api.servers import ProxyServer

TABLE = Path(__file__).with_name("header_table.md")
"""Expected table, from the models' schemas and the specification. ``tests.api.header_table`` prints the actual one."""


async def test_each_header_is_mapped_as_in_the_table(image_proxy: ProxyServer, replicate: DemoReplicate) -> None:
    assert (await markdown(image_proxy, replicate)).splitlines() == TABLE.read_text("utf-8").splitlines()
    assert len(LEGAL) == 15


@pytest.mark.parametrize("model", DEMO_MODELS, ids=title)
async def test_invalid_header_values_are_rejected(
    http: httpx2.AsyncClient, image_proxy: ProxyServer, predictions: ReplicateLog, model: DemoModel
) -> None:
    url = f"{image_proxy.url}/images/generations"
    body = {"model": model.name, "prompt": "A fox"}
    for header, values in ILLEGAL.items():
        for value in values:
            beside = {INIT: PICTURE} if header != INIT else {}
            reply = await post(http, url, body, **beside | {header: value})
            error = reply.json()["error"]
            assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", header), value
            assert error["message"].startswith(f"{header} must be ")
    assert ILLEGAL.keys() == LEGAL.keys()
    assert predictions.attempts() == 0
