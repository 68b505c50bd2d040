"""Checks of URLs and addresses from clients or models. They resolve no names and open no connections."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from msgspec import Struct
from yarl import URL

_NOT_HOSTS = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("192.88.99.0/24"))
"""IETF protocol assignments and 6to4 relays, some of which count as global."""

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Return whether a literal address is on the public internet. An IPv4 address embedded in IPv6 must be, too."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.is_global and not parsed.is_multicast and not any(parsed in network for network in _NOT_HOSTS)
    embedded = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
    if parsed in _NAT64:
        embedded = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    if embedded is not None:
        return is_public(str(embedded))
    return parsed.is_global and parsed in _GLOBAL_UNICAST and parsed not in _DOCUMENTATION


class NamedHosts:
    """The hosts in a setting, each ``host``, ``host:port`` or a whole origin."""

    def __init__(self, hosts: Collection[str]) -> None:
        self._patterns = [_parse_pattern(host) for host in hosts]

    def contain(self, url: URL) -> bool:
        return any(pattern.matches(url) for pattern in self._patterns)


class _HostPattern(Struct, frozen=True):
    """A scheme, host and port; None matches any."""

    scheme: str | None
    host: str | None
    port: int | None

    def matches(self, url: URL) -> bool:
        return self.scheme in (None, url.scheme) and self.host == url.host and self.port in (None, url.port)


def _parse_pattern(host: str) -> _HostPattern:
    url = URL(host if "://" in host else f"//{host}")
    return _HostPattern(url.scheme or None, url.host, url.port)


def has_credentials(url: URL) -> bool:
    return url.user is not None or url.password is not None
