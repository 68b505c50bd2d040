"""The sessions of the console: what their cookies open, and for whom."""

from __future__ import annotations

import httpx2
import pytest

from openai_dify_proxy.settings import SecretStr
from tests.api.conftest import Serve

KEY = "a-client-key-of-some-length"


@pytest.fixture
async def tab(serve: Serve, http: httpx2.AsyncClient) -> tuple[str, dict[str, str]]:
    """Sign in. Return the server's origin, and the headers of a request from the tab."""
    proxy = serve(api_keys=(SecretStr(KEY),))
    headers = {"X-Console-Tab": "7"}
    reply = await http.post(f"{proxy.origin}/console/session", headers=headers | {"Authorization": f"Bearer {KEY}"})
    assert reply.json()["signed_in"]
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    http.cookies.clear()
    return proxy.origin, headers | {"Cookie": cookie.partition(";")[0]}


async def test_the_cookie_opens_the_api_for_its_tab(http: httpx2.AsyncClient, tab: tuple[str, dict[str, str]]) -> None:
    origin, headers = tab
    assert (await http.get(f"{origin}/v1/models", headers=headers)).status_code == 200
    assert (await http.get(f"{origin}/v1/models", headers=headers | {"X-Console-Tab": "8"})).status_code == 401
    assert (await http.get(f"{origin}/v1/models", headers={"Cookie": headers["Cookie"]})).status_code == 401
    malformed = await http.get(f"{origin}/v1/models", headers=headers | {"X-Console-Tab": "x; y"})
    assert (malformed.status_code, malformed.json()["error"]["param"]) == (400, "X-Console-Tab")


async def test_other_origins_cannot_use_the_cookie(http: httpx2.AsyncClient, tab: tuple[str, dict[str, str]]) -> None:
    origin, headers = tab
    for other, status in (
        (origin, 200),
        ("http://127.0.0.1:1", 401),
        ("https://example.com", 401),
        ("null", 401),
        ("http://[::1", 401),
    ):
        reply = await http.get(f"{origin}/v1/models", headers=headers | {"Origin": other})
        assert reply.status_code == status


async def test_the_end_of_a_session_removes_the_cookie(
    http: httpx2.AsyncClient, tab: tuple[str, dict[str, str]]
) -> None:
    origin, headers = tab
    reply = await http.delete(f"{origin}/console/session", headers=headers)
    assert reply.status_code == 204
    assert 'console-7=""; ' in reply.headers["set-cookie"]
    assert "Max-Age=0" in reply.headers["set-cookie"]


async def test_the_status_names_no_key(http: httpx2.AsyncClient, tab: tuple[str, dict[str, str]]) -> None:
    origin, headers = tab
    signed_in = (await http.get(f"{origin}/console/session", headers=headers)).json()
    assert signed_in.pop("name").startswith("key-")
    assert signed_in == {
        "needs_key": True,
        "signed_in": True,
        "admin": False,
        "takes_dify_keys": True,
        "has_dify": True,
        "has_images": False,
    }
    stranger = (await http.get(f"{origin}/console/session")).json()
    assert (stranger["needs_key"], stranger["signed_in"], stranger["admin"]) == (True, False, False)


async def test_a_wrong_key_begins_no_session(http: httpx2.AsyncClient, serve: Serve) -> None:
    proxy = serve(api_keys=(SecretStr(KEY),))
    headers = {"X-Console-Tab": "7", "Authorization": "Bearer wrong"}
    reply = await http.post(f"{proxy.origin}/console/session", headers=headers)
    assert (reply.status_code, "set-cookie" in reply.headers) == (401, False)
