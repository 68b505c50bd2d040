"""The sockets that a server listens on."""

from __future__ import annotations

import errno
import socket
import sys

BACKLOG = 2048

UNSENT_BYTES = 128 * 1024
"""Bytes that the kernel buffers for a client beyond those on the way. Linux's default of 4 MB would fill with the
answers of clients that do not read."""


EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
"""The hosts that mean all addresses of the machine, with a loopback address of each."""


class CannotListen(Exception):
    """The server cannot listen on its address. The text contains the reason and the remedy."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of ``host``, all on one port. Raises CannotListen."""
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotListen(
            f"HOST {host} is not an address of this machine: {error.strerror}. Choose another (--host)."
        ) from error
    sockets: list[socket.socket] = []
    failures: list[OSError] = []
    for family, _, _, _, address in addresses:
        taken = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_listen_on(family, (address[0], taken, *address[2:])))
        except OSError as error:
            failures.append(error)
    # A name such as localhost may have an IPv6 address on a machine without IPv6.
    fatal = [error for error in failures if not sockets or error.errno not in _NO_SUCH_ADDRESS]
    if fatal:
        for listener in sockets:
            listener.close()
        raise CannotListen(_reason(fatal[0], host, port)) from fatal[0]
    return sockets


_NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def _listen_on(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" serves IPv4 too; otherwise each address has its own socket.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address[0] == "::" else 1)
        if sys.platform == "linux":
            listener.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES
            )  # its connections inherit it
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def _reason(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} of {host} is in use. Choose another port (--port), or stop the program that uses it."
        case errno.EACCES:
            return f"This process may not listen on port {port}. Choose a port above 1023 (--port)."
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine. Choose another (--host)."
        case _:
            return f"Cannot listen on {host}, port {port}: {error.strerror}."


def base_url(host: str, sockets: list[socket.socket]) -> str:
    """Return the URL to show: the actual port instead of 0, and a loopback address instead of all addresses."""
    name = host.strip("[]")
    name = EVERY_ADDRESS.get(name, name)
    return f"http://{f'[{name}]' if ':' in name else name}:{sockets[0].getsockname()[1]}"
