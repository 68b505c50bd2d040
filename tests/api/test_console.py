"""The files of the console: cached for ever, but for the page, and served only as themselves."""

from __future__ import annotations

import httpx2

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoServer
from tests.api.servers import ProxyServer


async def test_the_page_is_asked_for_again_and_its_files_are_not(http: httpx2.AsyncClient, proxy: ProxyServer) -> None:
    page = await http.get(f"{proxy.origin}/")
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert (await http.get(f"{proxy.origin}/", headers={"If-None-Match": page.headers["etag"]})).status_code == 304
    file = await http.get(f"{proxy.origin}/{_script(page.text)}")
    assert "immutable" in file.headers["cache-control"]
    assert file.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_the_policy_of_the_page_allows_only_its_own_files(http: httpx2.AsyncClient, proxy: ProxyServer) -> None:
    policy = (await http.get(f"{proxy.origin}/")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy


async def test_files_are_compressed_for_clients_that_accept_it(http: httpx2.AsyncClient, proxy: ProxyServer) -> None:
    script = f"{proxy.origin}/{_script((await http.get(f'{proxy.origin}/')).text)}"
    compressed = await http.get(script, headers={"Accept-Encoding": "gzip"})
    plain = await http.get(script, headers={"Accept-Encoding": "identity"})
    assert compressed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert compressed.content == plain.content


async def test_other_paths_are_not_files(http: httpx2.AsyncClient, proxy: ProxyServer) -> None:
    script = _script((await http.get(f"{proxy.origin}/")).text)
    folder = script.rpartition("/")[0]
    for path in ("console/000000000000/app.js", f"{folder}/%2e%2e/%2e%2e/app.py", f"{folder}/vendor/vendor.json"):
        assert (await http.get(f"{proxy.origin}/{path}")).status_code == 404


async def test_a_server_without_the_console_has_no_page(http: httpx2.AsyncClient, demo: DemoServer) -> None:
    with ProxyServer(Settings(dify_api_url=demo.url, console=False)) as proxy:
        assert (await http.get(f"{proxy.origin}/")).status_code == 404
        assert (await http.get(f"{proxy.origin}/console/0/app.js")).status_code == 404


def _script(page: str) -> str:
    return page.partition('<script type="module" src="')[2].partition('"')[0]
