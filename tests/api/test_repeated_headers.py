"""Headers that may be sent once: two different values are a 400 that names the header, two equal values are not."""

from __future__ import annotations

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import chat_body, error_of, the_turn
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer

ONCE = [
    "DIFY_API_KEY",
    "DIFY-API-KEY",
    "X-Dify-Api-Key",
    "X-Dify-Conversation-Id",
    "X-OpenWebUI-User-Id",
    "X-OpenWebUI-Chat-Id",
    "X-Conversation-Id",
    "Session_Id",
]
KEYS = ["Authorization", "api-key", "X-API-Key"]


@pytest.mark.parametrize("header", [*ONCE, *KEYS])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
async def test_two_values_of_a_header_are_rejected_by_its_name(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, header: str, path: str
) -> None:
    body = {**chat_body("hi"), "prompt": "hi", "input": "hi"}
    reply = await http.post(f"{proxy.url}{path}", json=body, headers=[(header, "app-one"), (header, "app-two")])
    assert reply.status_code == 400
    error = error_of(reply)
    assert error["param"] == header.lower()
    assert error["message"] == f"The header '{header.lower()}' is sent twice, with different values. Send it once."
    assert not log.requests


@pytest.mark.parametrize("header", ["DIFY_API_KEY", "Authorization"])
async def test_the_same_value_twice_is_accepted(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, header: str
) -> None:
    value = "app-demo-agent" if header == "DIFY_API_KEY" else "Bearer app-demo-agent"
    reply = await http.post(
        f"{proxy.url}/chat/completions", json=chat_body("hi"), headers=[(header, value), (header, value)]
    )
    assert reply.status_code == 200
    assert the_turn(log).key == "app-demo-agent"


async def test_image_routes_reject_two_keys_too(serve: Serve, http: httpx2.AsyncClient) -> None:
    guarded = serve(api_keys=(SecretStr("sk-one"), SecretStr("sk-two")))
    reply = await http.post(
        f"{guarded.url}/images/generations",
        json={"prompt": "x"},
        headers=[("api-key", "sk-one"), ("api-key", "sk-two")],
    )
    assert (reply.status_code, error_of(reply)["param"]) == (400, "api-key")


async def test_two_spellings_of_the_dify_key_header_must_agree(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    async def status(first: str, second: str) -> int:
        headers = {"DIFY_API_KEY": first, "X-Dify-Api-Key": second}
        reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi"), headers=headers)
        return reply.status_code

    assert await status("app-demo-agent", "app-demo-chat") == 400
    assert not log.requests
    assert await status("app-demo-agent", "Bearer app-demo-agent") == 200
