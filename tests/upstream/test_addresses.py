"""Classify addresses as public or not."""

from __future__ import annotations

import pytest

from openai_dify_proxy.upstream.addresses import is_public

ADDRESSES = {
    # https://www.iana.org/assignments/iana-ipv4-special-registry
    "8.8.8.8": True,
    "1.1.1.1": True,
    "100.63.255.255": True,
    "172.32.0.1": True,
    "0.0.0.0": False,
    "0.1.2.3": False,
    "10.0.0.1": False,
    "100.64.0.1": False,
    "127.0.0.1": False,
    "127.255.255.254": False,
    "169.254.169.254": False,
    "169.254.170.2": False,
    "172.16.0.1": False,
    "172.31.255.255": False,
    "192.0.0.1": False,
    "192.0.0.9": False,
    "192.0.0.170": False,
    "192.88.99.1": False,
    "192.0.2.1": False,
    "192.168.0.1": False,
    "198.18.0.1": False,
    "198.51.100.1": False,
    "203.0.113.1": False,
    "224.0.0.1": False,
    "239.255.255.250": False,
    "240.0.0.1": False,
    "255.255.255.255": False,
    # https://www.iana.org/assignments/iana-ipv6-special-registry
    "2606:4700:4700::1111": True,
    "2001:4860:4860::8888": True,
    "::": False,
    "::1": False,
    "::127.0.0.1": False,
    "::8.8.8.8": False,
    "::ffff:127.0.0.1": False,
    "::ffff:10.0.0.1": False,
    "::ffff:169.254.169.254": False,
    "::ffff:8.8.8.8": True,
    "::ffff:0:127.0.0.1": False,
    "64:ff9b::127.0.0.1": False,
    "64:ff9b::10.0.0.1": False,
    "64:ff9b::169.254.169.254": False,
    "64:ff9b::8.8.8.8": True,
    "64:ff9b:1::127.0.0.1": False,
    "64:ff9b:1::8.8.8.8": False,
    "100::1": False,
    "2001:db8::1": False,
    "2002:7f00:1::1": False,
    "2002:a00:1::1": False,
    "2002:a9fe:a9fe::1": False,
    "2002:808:808::1": True,
    # Teredo holds the client's address inverted, here 127.0.0.1 and 10.0.0.1
    "2001:0:4136:e378:8000:63bf:80ff:fffe": False,
    "2001:0:4136:e378:8000:63bf:f5ff:fffe": False,
    "3fff::1": False,
    "5f00::1": False,
    "fc00::1": False,
    "fd00:ec2::254": False,
    "fe80::1": False,
    "fe80::1%lo": False,
    "fec0::1": False,
    "ff02::1": False,
    "ff0e::1": False,
    # not addresses
    "localhost": False,
    "2130706433": False,
    "127.1": False,
    "": False,
}


@pytest.mark.parametrize(("address", "public"), ADDRESSES.items())
def test_addresses_of_the_public_internet(address: str, public: bool) -> None:
    assert is_public(address) is public
