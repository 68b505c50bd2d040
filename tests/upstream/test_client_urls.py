"""URLs from clients are rejected by their literal address, in any spelling."""

from __future__ import annotations

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.upstream.client_urls import ClientUrls
from tests.upstream.test_addresses import ADDRESSES
from tests.upstream.test_fetch import HERE


@pytest.mark.parametrize("host", HERE)
def test_loopback_in_every_spelling(host: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ClientUrls(()).check(f"http://{host}/a.png", "mask")
    assert caught.value.param == "mask"


@pytest.mark.parametrize(("address", "public"), ADDRESSES.items())
def test_literal_addresses(address: str, public: bool) -> None:
    url = f"https://{f'[{address}]' if ':' in address else address}/a.png"
    if public:
        assert ClientUrls(()).check(url, "image") == url
    else:
        with pytest.raises(InvalidRequest):
            ClientUrls(()).check(url, "image")


def test_names_are_not_resolved() -> None:
    url = "https://example.org:8443/a%20b.png?x=%26#part"
    assert ClientUrls(()).check(url, "image") == url


def test_allowed_hosts_may_have_any_address() -> None:
    urls = ClientUrls(("127.0.0.1:8080",))
    assert urls.check("http://127.0.0.1:8080/a.png", "image") == "http://127.0.0.1:8080/a.png"
    for other in ("http://127.0.0.1:8081/a.png", "http://user@127.0.0.1:8080/a.png", "ftp://127.0.0.1:8080/a.png"):
        with pytest.raises(InvalidRequest):
            urls.check(other, "image")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1%00.example.com", "%00", "a\x00b", "xn--localhost-", "xn--a", "\ud800.com", "a:99999", "a:x"),
        *("[::1", ""),
    ],
)
def test_names_that_cannot_be_decoded(host: str) -> None:
    for urls in (ClientUrls(()), ClientUrls(("127.0.0.1",))):
        with pytest.raises(InvalidRequest) as caught:
            urls.check(f"http://{host}/a.png", "image")
        assert caught.value.param == "image"
