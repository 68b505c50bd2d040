"""``/v1/stored_pictures``: operators list, delete and upload the stored pictures."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.api.conftest import Serve
from tests.api.image_requests import post, small


async def _generate(http: httpx2.AsyncClient, url: str, prompt: str) -> None:
    answer = await post(http, f"{url}/images/generations", small(prompt, response_format="url"), X_Replicate_Seed="7")
    assert answer.status_code == 200


async def _list(http: httpx2.AsyncClient, url: str, query: str = "") -> Any:
    answer = await http.get(f"{url}/stored_pictures{query}")
    assert answer.status_code == 200
    return answer.json()


async def test_pictures_are_listed_newest_first_with_their_records(
    http: httpx2.AsyncClient, serve_images: Serve
) -> None:
    proxy = serve_images(store_prompts=True)
    for prompt in ("one", "two", "three"):
        await _generate(http, proxy.url, prompt)
    found = await _list(http, proxy.url)
    assert not found["has_more"]
    assert {picture["prompt"] for picture in found["data"]} == {f"{name} SETTLED" for name in ("one", "two", "three")}
    created = [picture["created"] for picture in found["data"]]
    assert created == sorted(created, reverse=True)
    picture = found["data"][0]
    assert (picture["seed"], picture["ipfs"], picture["can_upload"]) == (7, "off", False)
    assert (await http.get(picture["url"])).headers["content-length"] == str(picture["size"])
    two = await _list(http, proxy.url, "?limit=2")
    assert two["data"] == found["data"][:2]
    assert two["has_more"]


async def test_a_limit_is_a_small_number(http: httpx2.AsyncClient, serve_images: Serve) -> None:
    proxy = serve_images()
    for limit in ("0", "201", "-1", "many"):
        answer = await http.get(f"{proxy.url}/stored_pictures?limit={limit}")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "limit"


async def test_a_deleted_picture_is_gone(http: httpx2.AsyncClient, serve_images: Serve) -> None:
    proxy = serve_images()
    await _generate(http, proxy.url, "one")
    (picture,) = (await _list(http, proxy.url))["data"]
    answer = await http.delete(f"{proxy.url}/stored_pictures/{picture['name']}")
    assert answer.json() == {"object": "picture", "id": picture["name"], "deleted": True}
    assert (await _list(http, proxy.url))["data"] == []
    assert (await http.get(picture["url"])).status_code == 404
    assert (await http.delete(f"{proxy.url}/stored_pictures/{picture['name']}")).status_code == 404


async def test_without_an_ipfs_node_nothing_is_uploaded(http: httpx2.AsyncClient, serve_images: Serve) -> None:
    proxy = serve_images()
    await _generate(http, proxy.url, "one")
    (picture,) = (await _list(http, proxy.url))["data"]
    answer = await http.post(f"{proxy.url}/stored_pictures/{picture['name']}/upload")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "ipfs_not_configured"


async def test_only_admins_see_the_pictures(http: httpx2.AsyncClient, serve_images: Serve) -> None:
    proxy = serve_images(api_keys=("a-client-key-of-some-length",))
    headers = {"Authorization": "Bearer a-client-key-of-some-length"}
    for method, path in (("GET", ""), ("DELETE", "/x.png"), ("POST", "/x.png/upload")):
        answer = await http.request(method, f"{proxy.url}/stored_pictures{path}", headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "admin_key_required"
        assert (await http.request(method, f"{proxy.url}/stored_pictures{path}")).status_code == 401


async def test_the_page_of_the_console_sends_forms_from_its_own_origin(
    http: httpx2.AsyncClient, serve_images: Serve
) -> None:
    proxy = serve_images()
    for origin, status in ((proxy.origin, 404), ("http://127.0.0.1:1", 415), ("https://example.com", 415)):
        answer = await http.post(f"{proxy.url}/stored_pictures/{'0' * 64}.png/upload", headers={"Origin": origin})
        assert answer.status_code in ({status, 400} if status == 404 else {status})
