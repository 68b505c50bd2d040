"""Reads URLs that somebody else chose.

``GuardedFetcher`` reads what a client named: public addresses only, checked when the socket is made, since a name may
resolve differently a moment later, a literal address is never resolved at all, and some spellings become one only on
the way there. ``OutputFetcher`` reads what a model put out: the hosts of the list, and no others. Both bound size, time
and redirects, and send no credentials. What is checked is the very URL that is then asked for, not another parser's
reading of the same text.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Collection

import aiohttp
from msgspec import Struct
from yarl import URL

from openai_dify_proxy.errors import InvalidRequest, ProxyError, UpstreamFailed, UpstreamGarbled

MAX_REDIRECTS = 3
FETCH_SECONDS = 60.0
"""For one picture, redirects included."""

REPLICATE_HOSTS = ("replicate.delivery",)
"""And every name below them."""

_REDIRECTS = (301, 302, 303, 307, 308)
_NOT_HOSTS = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("192.88.99.0/24"))
"""Protocol assignments and relays of 6to4, some of which count as global."""

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_Check = Callable[[URL], None]
_Fail = Callable[..., ProxyError]


def is_public(address: str) -> bool:
    """Whether a literal address belongs to the public internet; what an IPv6 address leads to counts as well."""
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


class GuardedFetcher:
    """Reads public URLs that a client named; errors are the client's to know.

    ``seconds`` bounds one picture, and ``public`` tells which addresses may be connected to.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        seconds: float = FETCH_SECONDS,
        public: Callable[[str], bool] = is_public,
    ) -> None:
        def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, proto, _, address = info
            if not public(str(address[0])):
                raise _NotPublic(_NOT_PUBLIC)
            return socket.socket(family, kind, proto)

        self._seconds = seconds
        self._session = _session(connect_timeout, aiohttp.TCPConnector(socket_factory=open_socket, force_close=True))

    async def close(self) -> None:
        await self._session.close()

    async def read(self, url: str, limit: int, param: str) -> bytes:
        """At most ``limit`` bytes. Raises InvalidRequest with ``param``."""

        def check(parts: URL) -> None:
            if parts.scheme not in ("http", "https") or not parts.host or has_credentials(parts):
                raise InvalidRequest(f"{param} must be a plain http or https URL.", param=param)

        def fail(message: str, _passing: bool = False) -> ProxyError:
            return InvalidRequest(f"{param} could not be read: {message}", param=param)

        return await _read(self._session, url, limit=limit, seconds=self._seconds, check=check, fail=fail)


class OutputFetcher:
    """Reads a model's outputs from Replicate's hosts and those that the operator named.

    ``hosts`` are ``host``, ``host:port`` or whole origins. On these plain HTTP and any address are allowed.
    ``seconds`` bounds one picture.
    """

    def __init__(self, hosts: Collection[str], *, connect_timeout: float, seconds: float = FETCH_SECONDS) -> None:
        self._named = NamedHosts(hosts)
        self._seconds = seconds
        self._session = _session(connect_timeout, aiohttp.TCPConnector())

    async def close(self) -> None:
        await self._session.close()

    async def read(self, url: str, limit: int) -> bytes:
        """At most ``limit`` bytes. Raises UpstreamFailed."""

        def check(parts: URL) -> None:
            if not self.allows(parts):
                host = (parts.host or "nowhere")[:200]
                raise UpstreamFailed(
                    "The model's picture lies where this server does not fetch from.",
                    started=True,
                    log=f"An output or its redirection points to {parts.scheme}://{host}: is it one to add to "
                    "REPLICATE_OUTPUT_HOSTS?",
                )

        def fail(message: str, passing: bool = False) -> ProxyError:
            kind = UpstreamGarbled if passing else UpstreamFailed
            return kind(f"The model's picture could not be read: {message}", started=True)

        return await _read(self._session, url, limit=limit, seconds=self._seconds, check=check, fail=fail)

    def allows(self, url: URL) -> bool:
        """Whether pictures are read from there."""
        host = url.host or ""
        if url.scheme not in ("http", "https") or has_credentials(url):
            return False
        known = any(host == name or host.endswith(f".{name}") for name in REPLICATE_HOSTS)
        return (known and url.scheme == "https") or self._named.hold(url)


class NamedHosts:
    """``hosts`` are ``host``, ``host:port`` or whole origins."""

    def __init__(self, hosts: Collection[str]) -> None:
        self._named = [_named(host) for host in hosts]

    def hold(self, url: URL) -> bool:
        return any(named.holds(url) for named in self._named)


class _Named(Struct, frozen=True):
    """A host of the operator's; None stands for any scheme or port."""

    scheme: str | None
    host: str | None
    port: int | None

    def holds(self, url: URL) -> bool:
        return self.scheme in (None, url.scheme) and self.host == url.host and self.port in (None, url.port)


def _named(host: str) -> _Named:
    url = URL(host if "://" in host else f"//{host}")
    return _Named(url.scheme or None, url.host, url.port)


class _NotPublic(OSError):
    pass


_NOT_PUBLIC = "it points to an address that this server does not read from."


def _session(connect_timeout: float, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


async def _read(
    session: aiohttp.ClientSession, text: str, *, limit: int, seconds: float, check: _Check, fail: _Fail
) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            url = URL(text)
            for _ in range(MAX_REDIRECTS + 1):
                check(url)
                async with session.get(url, allow_redirects=False) as response:
                    if response.status in _REDIRECTS and "location" in response.headers:
                        url = url.join(URL(response.headers["location"]))
                        continue
                    if response.status != 200:
                        raise fail(f"HTTP {response.status}.", response.status >= 500)
                    return await _bounded(response, limit, fail)
            raise fail("it redirects too often.")
    except TimeoutError:
        raise fail("it took too long.", True) from None
    except aiohttp.ClientConnectorError as exc:
        raise fail(_NOT_PUBLIC if isinstance(exc.os_error, _NotPublic) else "no answer.") from exc
    except ValueError:
        raise fail("it is no URL.") from None
    except (aiohttp.ClientError, OSError) as exc:
        raise fail("no answer.", True) from exc


async def _bounded(response: aiohttp.ClientResponse, limit: int, fail: _Fail) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise fail(f"it is larger than {limit} bytes.")
        parts.append(part)
    return b"".join(parts)


def has_credentials(url: URL) -> bool:
    return url.user is not None or url.password is not None
