"""The ways to other servers: proxies in between, and the certificates that are trusted."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from base64 import b64encode
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from openai_dify_proxy.settings import NetworkSettings, SecretStr
from openai_dify_proxy.upstream.endpoints import Endpoint, Origin

MAX_TUNNEL_HEAD = 64 * 1024
DEFAULT_PORT = 80
"""The port of a proxy URL without one, as in curl for ``http`` URLs."""


class ProxyServer(Struct, frozen=True):
    """An HTTP proxy. ``url`` may hold a user and a password; ``authorization`` is a header line or empty."""

    url: str
    host: str
    port: int
    authorization: bytes


class ProxyFailed(OSError):
    """The proxy cannot be reached, or refuses the connection. ``strerror`` has the reason."""

    def __init__(self, proxy: ProxyServer, reason: str) -> None:
        super().__init__(errno.EIO, f"the proxy {proxy.host}:{proxy.port} {reason}")


class Network:
    """The proxies and certificates of ``settings``."""

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        settings = settings or NetworkSettings()
        found = {"http": _proxy(settings.http_proxy), "https": _proxy(settings.https_proxy)}
        self._proxies = {scheme: proxy for scheme, proxy in found.items() if proxy is not None}
        self._exceptions = settings.no_proxy
        self._ca_file = settings.extra_ca_certs
        self.proxies_fetches = settings.proxy_fetches
        self.forwards = "http" in self._proxies
        """Whether a proxy forwards requests to ``http`` URLs."""

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The context for TLS connections: the system's certificates and those of ``EXTRA_CA_CERTS``."""
        context = ssl.create_default_context()
        if self._ca_file is not None:
            context.load_verify_locations(Path(self._ca_file).expanduser())
        return context

    def proxy_of(self, scheme: str, host: str, port: int) -> ProxyServer | None:
        """Return the proxy for connections to an origin, or None if they are direct."""
        proxy = self._proxies.get(scheme)
        if proxy is None or _is_loopback(host) or any(_matches(one, host, port) for one in self._exceptions):
            return None
        return proxy

    def forward(self, endpoint: Endpoint) -> tuple[str, bytes]:
        """Return the request target and the header line for a proxy that forwards the request, if there is one."""
        origin = endpoint.origin
        proxy = self.proxy_of(origin.scheme, origin.host, origin.port) if origin.scheme == "http" else None
        if proxy is None:
            return endpoint.path, b""
        return f"http://{endpoint.authority}{endpoint.path}", proxy.authorization


def _proxy(url: SecretStr | None) -> ProxyServer | None:
    if url is None:
        return None
    parts = urlsplit(url.get_secret_value())
    authorization = b""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Proxy-Authorization: Basic %b\r\n" % b64encode(user.encode())
    return ProxyServer(url.get_secret_value(), parts.hostname or "", parts.port or DEFAULT_PORT, authorization)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _matches(exception: str, host: str, port: int) -> bool:
    """Return whether an entry of ``NO_PROXY`` covers a host: a name, an address or a network, perhaps with a port."""
    exception = exception.lower()
    if exception == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(exception.strip("[]"), strict=False)
    except ValueError:
        pass  # one of both is a name, or the exception has a port
    name, colon, number = exception.rpartition(":")
    if colon and number.isdecimal():
        return int(number) == port and _matches(name, host, port)
    suffix = exception.removeprefix("*").removeprefix(".")
    return host == suffix or host.endswith(f".{suffix}")


async def connect_to_proxy(proxy: ProxyServer) -> socket.socket:
    """Return a non-blocking socket that is connected to the proxy. Raises ProxyFailed."""
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ProxyFailed(proxy, "cannot be resolved") from error
    failure: OSError | None = None
    for family, kind, proto, _, address in addresses:
        opened = socket.socket(family, kind, proto)
        opened.setblocking(False)
        try:
            await loop.sock_connect(opened, address)
        except OSError as error:
            opened.close()
            failure = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    reason = failure.strerror if failure is not None else None
    raise ProxyFailed(proxy, f"cannot be reached: {(reason or 'unknown reason').lower()}") from failure


async def open_tunnel(proxy: ProxyServer, origin: Origin) -> socket.socket:
    """Return a socket that the proxy has connected to ``origin`` (RFC 9110, 9.3.6). Raises ProxyFailed."""
    opened = await connect_to_proxy(proxy)
    try:
        await _tunnel(opened, proxy, origin)
    except BaseException:
        opened.close()
        raise
    return opened


async def _tunnel(opened: socket.socket, proxy: ProxyServer, origin: Origin) -> None:
    loop = asyncio.get_running_loop()
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}".encode("idna" if not host.isascii() else "ascii")
    head = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, proxy.authorization)
    answer = b""
    try:
        await loop.sock_sendall(opened, head)
        while b"\r\n\r\n" not in answer:
            part = await loop.sock_recv(opened, 4096)
            answer += part
            if not part or len(answer) > MAX_TUNNEL_HEAD:
                raise ProxyFailed(proxy, "sent no complete answer to CONNECT")
    except ConnectionError as error:
        raise ProxyFailed(proxy, "closed the connection") from error
    status = answer.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
        raise ProxyFailed(proxy, "does not speak HTTP")
    if status[1] == b"407":
        raise ProxyFailed(proxy, "requires a user and a password")
    if not 200 <= int(status[1][:3]) < 300:
        raise ProxyFailed(proxy, f"refused the connection with status {int(status[1][:3])}")
    if not answer.endswith(b"\r\n\r\n"):  # a TLS server never speaks first
        raise ProxyFailed(proxy, "sent data before the server")
