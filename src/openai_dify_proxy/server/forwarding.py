"""The address and scheme of a client behind trusted reverse proxies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAX_HOPS = 32
"""Entries at the end of ``X-Forwarded-For`` that are looked at."""


def parse_address(text: str) -> Address | None:
    """Return the address in ``text``, which may have a port, or None."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_trusted(address: Address | None, proxies: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in proxies)


def forwarded_client(peer: str, headers: Iterable[tuple[bytes, bytes]], proxies: Sequence[Network]) -> str:
    """Return the address of the client of ``peer``, a trusted proxy: the last one that is not a trusted proxy.

    Each proxy appends the address that it was called from, so whatever precedes the last untrusted address may be
    invented. Without such an address, return the last trusted one.
    """
    chain = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
    found = peer
    for hop in reversed(chain.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
        address = parse_address(hop)
        if address is None:
            break
        found = str(address)
        if not is_trusted(address, proxies):
            break
    return found


def forwarded_scheme(headers: Iterable[tuple[bytes, bytes]], default: str) -> str:
    """Return the scheme that the client used, as the nearest proxy reports it."""
    schemes = [value for name, value in headers if name == b"x-forwarded-proto"]
    last = schemes[-1].rpartition(b",")[2].strip().lower() if schemes else b""
    return last.decode("ascii") if last in (b"http", b"https") else default
