"""The client behind reverse proxies: the last untrusted address, also with headers that the client invents."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.server.forwarding import forwarded_client, forwarded_scheme, is_trusted, parse_address

PROXIES = tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.7", "fd00::/8")))
PEER = "10.0.0.1"


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], PEER),
        (["203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 10.1.1.1,192.0.2.7"], "203.0.113.9"),
        (["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:db8::1, fd00::5"], "2001:db8::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1, ::ffff:10.1.1.1"], "1.1.1.1"),
        (["fe80::1%eth0"], "fe80::1"),
        (["1.1.1.1, unknown"], PEER),
        (["1.1.1.1, unknown, 10.1.1.1"], "10.1.1.1"),
        ([""], PEER),
        ([","], PEER),
        (["\x1b[31m"], PEER),
        (["9" * 60_000], PEER),
        (["1.1.1.1," + "10.1.1.1," * 5000 + "10.1.1.2"], "10.1.1.1"),
    ],
)
def test_client_of_a_proxy(values: list[str], client: str) -> None:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode()) for value in values)]
    assert forwarded_client(PEER, headers, PROXIES) == client


@given(st.lists(st.binary(), max_size=4), st.ip_addresses())
def test_what_the_client_sends_does_not_change_its_address(invented: list[bytes], address: object) -> None:
    values = [*invented, str(address).encode()]
    found = forwarded_client(PEER, [(b"x-forwarded-for", value) for value in values], PROXIES)
    assert found == str(parse_address(str(address))) or is_trusted(parse_address(str(address)), PROXIES)
    assert parse_address(found) is not None


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ([], "http"),
        ([b"https"], "https"),
        ([b"HTTPS"], "https"),
        ([b"https, http"], "http"),
        ([b"http", b"https"], "https"),
        ([b"javascript"], "http"),
        ([b""], "http"),
    ],
)
def test_scheme_of_the_client(values: list[bytes], scheme: str) -> None:
    assert forwarded_scheme([(b"x-forwarded-proto", value) for value in values], "http") == scheme
