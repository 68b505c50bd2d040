"""Reads URLs that somebody else chose.

``GuardedFetcher`` reads what a client named: public addresses only, checked when the socket is made, since a name may
resolve differently a moment later and a literal address is never resolved at all. ``OutputFetcher`` reads what a model
put out: the hosts of the list, and no others. Both bound size, time and redirects, and send no credentials.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from openai_dify_proxy.errors import InvalidRequest, ProxyError, UpstreamFailed

MAX_REDIRECTS = 3
FETCH_SECONDS = 60.0
REPLICATE_HOSTS = ("replicate.delivery",)
"""And every name below them."""


class _PublicResolver(AbstractResolver):
    """Resolves names to public addresses, or to none."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [result for result in found if is_public(result["host"])]
        if not public:
            raise OSError(None, f"{host} has no public address")
        return public

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Whether a literal address belongs to the public internet."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        embedded = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo[1] if parsed.teredo else None)
        if embedded is not None:
            return embedded.is_global and not embedded.is_multicast
        if parsed in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
    return parsed.is_global and not parsed.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class GuardedFetcher:
    """Reads public URLs that a client named; errors are the client's to know."""

    def __init__(self, *, connect_timeout: float) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_PublicResolver(), use_dns_cache=False, force_close=True),
            timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS, sock_connect=connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def read(self, url: str, limit: int, param: str) -> bytes:
        """At most ``limit`` bytes. Raises InvalidRequest with ``param``."""

        def check(parts: SplitResult) -> None:
            host = parts.hostname or ""
            if parts.scheme not in ("http", "https") or not host or parts.username is not None:
                raise InvalidRequest(f"{param} must be a plain http or https URL.", param=param)
            if _is_literal(host) and not is_public(host):
                raise InvalidRequest(f"{param} points to an address that this server does not read from.", param=param)

        def fail(message: str) -> ProxyError:
            return InvalidRequest(f"{param} could not be read: {message}", param=param)

        return await _read(self._session, url, limit, check, fail)


class OutputFetcher:
    """Reads a model's outputs from Replicate's hosts and those that the operator named.

    ``hosts`` are ``host``, ``host:port`` or whole origins. On these plain HTTP and any address are allowed.
    """

    def __init__(self, hosts: Collection[str], *, connect_timeout: float) -> None:
        self._named = {_authority(host) for host in hosts}
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS, sock_connect=connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def read(self, url: str, limit: int) -> bytes:
        """At most ``limit`` bytes. Raises UpstreamFailed."""

        def check(parts: SplitResult) -> None:
            if not self._allows(parts):
                host = (parts.hostname or "nowhere")[:200]
                raise UpstreamFailed(
                    "The model's picture lies where this server does not fetch from.",
                    started=True,
                    log=f"An output or its redirection points to {parts.scheme}://{host}: is it one to add to "
                    "REPLICATE_OUTPUT_HOSTS?",
                )

        def fail(message: str) -> ProxyError:
            return UpstreamFailed(f"The model's picture could not be read: {message}", started=True)

        return await _read(self._session, url, limit, check, fail)

    def _allows(self, parts: SplitResult) -> bool:
        host = (parts.hostname or "").lower()
        if parts.scheme not in ("http", "https") or parts.username is not None:
            return False
        if host in self._named or f"{host}:{parts.port}" in self._named:
            return True
        known = any(host == name or host.endswith(f".{name}") for name in REPLICATE_HOSTS)
        return known and parts.scheme == "https"


async def _read(session: aiohttp.ClientSession, url: str, limit: int, check: Any, fail: Any) -> bytes:
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            for _ in range(MAX_REDIRECTS + 1):
                check(_split(url, fail))
                async with session.get(url, allow_redirects=False) as response:
                    if response.status in (301, 302, 303, 307, 308) and "location" in response.headers:
                        url = urljoin(url, response.headers["location"])
                        continue
                    if response.status != 200:
                        raise fail(f"HTTP {response.status}.")
                    return await _bounded(response, limit, fail)
            raise fail("it redirects too often.")
    except TimeoutError:
        raise fail("it took too long.") from None
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise fail("no answer.") from exc


def _split(url: str, fail: Any) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise fail("it is no URL.") from None
    return parts


async def _bounded(response: aiohttp.ClientResponse, limit: int, fail: Any) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise fail(f"it is larger than {limit} bytes.")
        parts.append(part)
    return b"".join(parts)


def _is_literal(host: str) -> bool:
    """Whether a host is an address rather than a name; ``socket`` also takes 2130706433 and 0x7f.1 for one."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return all(part.isdigit() or part.lower().startswith("0x") for part in host.split("."))
    return True


def _authority(host: str) -> str:
    return (urlsplit(host).netloc if "://" in host else host).lower()
