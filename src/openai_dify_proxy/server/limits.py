"""The limits of client connections."""

from __future__ import annotations

import sys
from ipaddress import ip_network
from typing import Final

from msgspec import Struct

from openai_dify_proxy.server.forwarding import Network
from openai_dify_proxy.settings import Settings

if sys.platform != "win32":
    import resource

RESERVED_DESCRIPTORS = 64
"""Descriptors for the state, stored pictures, the log and the interpreter."""


HEALTH_PATHS: Final = frozenset({"/health", "/ready"})
"""The paths that are answered beyond the limit of connections too."""

HEALTH_CHECKS: Final = tuple(f"GET {path}".encode() for path in HEALTH_PATHS)
"""The beginnings of requests to these paths."""

PIECE = 4096
"""Bytes that are parsed at once while a head or a chunked body is read, where no other boundary is known."""

MAX_WAITING_BYTES = 64 * 1024
"""Bytes of one connection's requests that are parsed while they wait for an earlier answer; then reading pauses."""

WAITING_REQUEST_BYTES = 2048
"""The memory that a waiting request takes besides its head and body."""

LINGER_SECONDS = 5.0
"""How long data is discarded after a refusal. Closing at once would reset the connection, and the client would lose
the response that it has not read yet."""

MAX_DISCARDED_BYTES = 1024 * 1024
"""The rest of a body that is read and discarded after an early response, so that the connection can be used again."""


class HttpLimits(Struct, frozen=True):
    """What the settings allow the clients of one process, as far as the front door enforces it."""

    head_bytes: int
    url_bytes: int
    headers: int
    head_timeout: float
    body_window: float
    body_rate: int
    idle_timeout: float
    pipelined: int
    head_memory: int
    """Bytes of incomplete heads and waiting requests of all connections. Parsed, they take several times as much."""
    stream_memory: int
    """Bytes that all connections together buffer for slow clients."""
    write_timeout: float
    connections: int | None
    """None: as many as ``connection_limit`` returns."""
    proxies: tuple[Network, ...]
    """The reverse proxies whose ``X-Forwarded-For`` counts."""


def http_limits(settings: Settings) -> HttpLimits:
    """Return the limits that the settings define."""
    return HttpLimits(
        head_bytes=settings.max_head_bytes,
        url_bytes=settings.max_url_bytes,
        headers=settings.max_headers,
        head_timeout=settings.head_timeout,
        body_window=settings.body_rate_window,
        body_rate=settings.min_body_rate,
        idle_timeout=settings.idle_timeout,
        pipelined=settings.max_pipelined_requests,
        head_memory=settings.head_memory,
        stream_memory=settings.stream_memory,
        write_timeout=settings.write_timeout,
        connections=settings.max_connections,
        proxies=tuple(map(ip_network, settings.trusted_proxies)),
    )


def connection_limit() -> int:
    """Raise the soft limit of open files to the hard one and return how many clients it leaves room for.

    Each client may need a second descriptor, for its connection to Dify.
    """
    if sys.platform == "win32":
        return 1024  # Windows has no such limit; each connection costs memory
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # macOS reports "unlimited" and rejects it; the soft limit then holds
    if soft == resource.RLIM_INFINITY:
        return 65_536
    return max(16, min(65_536, (soft - RESERVED_DESCRIPTORS) // 2))
