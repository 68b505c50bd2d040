"""Requests with odd contents: rejected with a 400 that says why, never a 500."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.wire.complexity import MAX_DEPTH, MAX_VALUES
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import error_of
from tests.api.servers import ProxyServer

ROUTES = {
    "/chat/completions": {"model": "demo-chat", "messages": [{"role": "user", "content": "Hi"}]},
    "/completions": {"model": "demo-chat", "prompt": "Hi"},
    "/responses": {"model": "demo-chat", "input": "Hi"},
    "/conversations": {"metadata": {}},
}


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


async def post(http: httpx2.AsyncClient, proxy: ProxyServer, path: str, field: str, value: str) -> httpx2.Response:
    body = json.dumps(ROUTES[path])[:-1] + f', "{field}": {value}' + "}"
    return await http.post(proxy.url + path, content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("field", ["inputs", "tools", "unknown"])
async def test_deep_json(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, path: str, field: str) -> None:
    for levels in (MAX_DEPTH, 940, 955, 960, 962, 965, 970, 1000, 5000):
        reply = await post(http, proxy, path, field, nested(levels))
        assert reply.status_code == 400, levels
        assert f"more than {MAX_DEPTH} levels" in error_of(reply)["message"]
    assert not log.requests


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("field", ["inputs", "unknown"])
async def test_json_as_deep_as_allowed(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, path: str, field: str
) -> None:
    reply = await post(http, proxy, path, field, nested(MAX_DEPTH - 1))
    assert reply.status_code == 200


@pytest.mark.parametrize("path", ROUTES)
async def test_too_many_values(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, path: str) -> None:
    reply = await post(http, proxy, path, "unknown", "[" + "{}," * (MAX_VALUES // 2) + "{}]")
    assert reply.status_code == 400
    assert f"more than {MAX_VALUES} values" in error_of(reply)["message"]
    assert not log.requests


@pytest.mark.parametrize("value", [nested(600), "[" + "{}," * (MAX_VALUES // 2) + "{}]"], ids=["deep", "many"])
async def test_json_inside_a_string(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, value: str) -> None:
    metadata: dict[str, Any] = {"dify_inputs": f'{{"a": {value}}}'}
    reply = await post(http, proxy, "/chat/completions", "metadata", json.dumps(metadata))
    assert (reply.status_code, error_of(reply)["param"]) == (400, "metadata.dify_inputs")
    assert not log.requests
