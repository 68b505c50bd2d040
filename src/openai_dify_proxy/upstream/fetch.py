"""Fetches URLs from clients and models.

``GuardedFetcher`` fetches URLs of clients, from public addresses only. It checks the address when the socket is
created: a name may resolve differently a moment later, and some spellings of an address are never resolved.
``OutputFetcher`` fetches a model's outputs, from the listed hosts only. Both limit size, time and redirects, and send
no credentials. The checked URL object is the fetched one, so that no second parser can read the text differently.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection

import aiohttp
from yarl import URL

from openai_dify_proxy.errors import SEE_LOG, InvalidRequest, ProxyError, UpstreamFailed, UpstreamGarbled
from openai_dify_proxy.upstream.addresses import NamedHosts, has_credentials, is_public
from openai_dify_proxy.upstream.bounded import ResponseTooLarge, read_bounded
from openai_dify_proxy.upstream.client_urls import ClientUrls
from openai_dify_proxy.upstream.network import Network

MAX_REDIRECTS = 3
FETCH_SECONDS = 60.0
"""Time limit of one picture, redirects included."""

REPLICATE_HOSTS = ("replicate.delivery",)
"""These hosts and their subdomains."""

_REDIRECTS = (301, 302, 303, 307, 308)
_Check = Callable[[URL], None]
_Fail = Callable[..., ProxyError]
_Route = tuple[aiohttp.ClientSession, str | None]
"""The session that fetches a URL, and the URL of the proxy for it."""


class GuardedFetcher:
    """Fetches public URLs from requests; errors are the client's.

    ``seconds`` limits one picture; ``public`` decides whether an address may be connected to. Where a proxy of
    ``network`` applies, only the proxy sees the address, so URLs are fetched only if ``PROXY_FETCHES`` allows it.
    """

    def __init__(
        self,
        *,
        connect_timeout: float,
        seconds: float = FETCH_SECONDS,
        public: Callable[[str], bool] = is_public,
        network: Network | None = None,
    ) -> None:
        def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, proto, _, address = info
            if not public(str(address[0])):
                raise _NotPublic(_NOT_PUBLIC)
            return socket.socket(family, kind, proto)

        self._seconds = seconds
        self._network = network = network or Network()
        guarded = aiohttp.TCPConnector(socket_factory=open_socket, force_close=True, ssl=network.tls)
        self._session = _session(connect_timeout, guarded)
        # Connects to proxies only, whose addresses may be private.
        self._proxied = _session(connect_timeout, aiohttp.TCPConnector(force_close=True, ssl=network.tls))

    async def close(self) -> None:
        await self._session.close()
        await self._proxied.close()

    async def read(self, url: str, limit: int, param: str) -> bytes:
        """Return the content of ``url``, at most ``limit`` bytes. Raises InvalidRequest with ``param``."""

        def check(parts: URL) -> None:
            if parts.scheme not in ("http", "https") or not parts.host or has_credentials(parts):
                raise InvalidRequest(f"{param} must be an http or https URL without a user or password.", param=param)

        def fail(message: str, _retryable: bool = False) -> ProxyError:
            return InvalidRequest(f"{param} could not be read: {message}", param=param)

        def route(url: URL) -> _Route:
            proxy = _proxy_url(self._network, url)
            if proxy is None:
                return self._session, None
            if not self._network.proxies_fetches:
                raise fail("this server does not fetch URLs through its proxy. Send the file as base64 instead.")
            ClientUrls(()).check(str(url), param)  # literal addresses; the proxy must check those of names
            return self._proxied, proxy

        return await _read(route, url, limit=limit, seconds=self._seconds, check=check, fail=fail)


class OutputFetcher:
    """Reads a model's outputs from Replicate's hosts and from ``hosts``.

    ``hosts`` are ``host``, ``host:port`` or whole origins, where plain HTTP and any address are allowed. ``seconds``
    limits one picture.
    """

    def __init__(
        self,
        hosts: Collection[str],
        *,
        connect_timeout: float,
        seconds: float = FETCH_SECONDS,
        network: Network | None = None,
    ) -> None:
        self._named = NamedHosts(hosts)
        self._seconds = seconds
        self._network = network or Network()
        self._session = _session(connect_timeout, aiohttp.TCPConnector(ssl=self._network.tls))

    async def close(self) -> None:
        await self._session.close()

    async def read(self, url: str, limit: int) -> bytes:
        """Return the content of ``url``, at most ``limit`` bytes. Raises UpstreamFailed."""

        def check(parts: URL) -> None:
            if not self.allows(parts):
                host = (parts.host or "nowhere")[:200]
                raise UpstreamFailed(
                    f"The model's picture is on a host that this server does not fetch from. {SEE_LOG}",
                    started=True,
                    log=f"An output or its redirect points to {parts.scheme}://{host}. "
                    "If you trust this host, add it to REPLICATE_OUTPUT_HOSTS.",
                )

        def fail(message: str, retryable: bool = False) -> ProxyError:
            kind = UpstreamGarbled if retryable else UpstreamFailed
            return kind(f"The model's picture could not be read: {message}", started=True)

        def route(url: URL) -> _Route:
            return self._session, _proxy_url(self._network, url)

        return await _read(route, url, limit=limit, seconds=self._seconds, check=check, fail=fail)

    def allows(self, url: URL) -> bool:
        """Return whether pictures are fetched from ``url``."""
        host = url.host or ""
        if url.scheme not in ("http", "https") or has_credentials(url):
            return False
        known = any(host == name or host.endswith(f".{name}") for name in REPLICATE_HOSTS)
        return (known and url.scheme == "https") or self._named.contain(url)


class _NotPublic(OSError):
    pass


_NOT_PUBLIC = "it points to an address outside the public internet."


def _session(connect_timeout: float, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


def _proxy_url(network: Network, url: URL) -> str | None:
    proxy = network.proxy_of(url.scheme, url.host or "", url.port or 0)
    return proxy.url if proxy is not None else None


async def _read(
    route: Callable[[URL], _Route], text: str, *, limit: int, seconds: float, check: _Check, fail: _Fail
) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            url = URL(text)
            for _ in range(MAX_REDIRECTS + 1):
                check(url)
                session, proxy = route(url)
                async with session.get(url, allow_redirects=False, proxy=proxy) as response:
                    if response.status in _REDIRECTS and "location" in response.headers:
                        url = url.join(URL(response.headers["location"]))
                        continue
                    if response.status != 200:
                        raise fail(f"HTTP {response.status}.", response.status >= 500)
                    return await read_bounded(response, limit)
            raise fail("it redirects too many times.")
    except ResponseTooLarge:
        raise fail(f"it is larger than {limit} bytes.") from None
    except aiohttp.ConnectionTimeoutError as exc:
        raise fail("no answer.", True) from exc
    except TimeoutError:
        raise fail(f"it took longer than {seconds:g} s.", True) from None
    except aiohttp.ClientConnectorError as exc:
        raise fail(_NOT_PUBLIC if isinstance(exc.os_error, _NotPublic) else "no answer.") from exc
    except ValueError:
        raise fail("it is not a URL.") from None
    except (aiohttp.ClientError, OSError) as exc:
        raise fail("no answer.", True) from exc
