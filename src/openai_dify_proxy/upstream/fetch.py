"""Fetches URLs that clients or models chose.

``GuardedFetcher`` fetches what a client named: public addresses only, checked when the socket is made, since a name may
resolve differently a moment later, and some spellings of an address are never resolved. ``OutputFetcher`` fetches a
model's outputs: from the listed hosts only. Both bound size, time and redirects, and send no credentials. The parsed
URL that is checked is the one that is fetched, so that no second parser can read the text differently.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection

import aiohttp
from yarl import URL

from openai_dify_proxy.errors import InvalidRequest, ProxyError, UpstreamFailed, UpstreamGarbled
from openai_dify_proxy.upstream.addresses import NamedHosts, has_credentials, is_public
from openai_dify_proxy.upstream.bounded import ResponseTooLarge, read_bounded

MAX_REDIRECTS = 3
FETCH_SECONDS = 60.0
"""For one picture, redirects included."""

REPLICATE_HOSTS = ("replicate.delivery",)
"""And every name below them."""

_REDIRECTS = (301, 302, 303, 307, 308)
_Check = Callable[[URL], None]
_Fail = Callable[..., ProxyError]


class GuardedFetcher:
    """Fetches public URLs that a client named; the client learns of errors.

    ``seconds`` bounds one picture, and ``public`` decides which addresses may be connected to.
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

        def fail(message: str, _retryable: bool = False) -> ProxyError:
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

        def fail(message: str, retryable: bool = False) -> ProxyError:
            kind = UpstreamGarbled if retryable else UpstreamFailed
            return kind(f"The model's picture could not be read: {message}", started=True)

        return await _read(self._session, url, limit=limit, seconds=self._seconds, check=check, fail=fail)

    def allows(self, url: URL) -> bool:
        """Whether pictures are read from there."""
        host = url.host or ""
        if url.scheme not in ("http", "https") or has_credentials(url):
            return False
        known = any(host == name or host.endswith(f".{name}") for name in REPLICATE_HOSTS)
        return (known and url.scheme == "https") or self._named.contain(url)


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
                    return await read_bounded(response, limit)
            raise fail("it redirects too often.")
    except ResponseTooLarge:
        raise fail(f"it is larger than {limit} bytes.") from None
    except TimeoutError:
        raise fail("it took too long.", True) from None
    except aiohttp.ClientConnectorError as exc:
        raise fail(_NOT_PUBLIC if isinstance(exc.os_error, _NotPublic) else "no answer.") from exc
    except ValueError:
        raise fail("it is no URL.") from None
    except (aiohttp.ClientError, OSError) as exc:
        raise fail("no answer.", True) from exc
