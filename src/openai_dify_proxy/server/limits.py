"""The limits of client connections."""

from __future__ import annotations

import resource

from msgspec import Struct

RESERVED_DESCRIPTORS = 64
"""Descriptors for the state, stored pictures, the log and the interpreter."""


class HttpLimits(Struct, frozen=True):
    """What one connection may send, and how slowly. Sizes in bytes, times in seconds."""

    head_bytes: int = 64 * 1024
    """The largest request head (request line and headers); a larger one is a 431."""
    url_bytes: int = 16 * 1024
    """The longest request target; a longer one is a 414."""
    head_timeout: float = 10.0
    """From the first byte of a request to the end of its head; then 408."""
    body_window: float = 10.0
    """The period over which the rate of a body is measured, and so the grace of its first bytes."""
    body_rate: int = 16 * 1024
    """The lowest rate of a body in bytes per second, averaged over ``body_window``; a slower one is a 408."""
    idle_timeout: float = 65.0
    """How long a connection may stay open without a request. Clients and balancers close theirs after 5 to 60 s, so
    none sends a request into a connection that is just being closed."""
    pipelined: int = 16
    """Requests that may wait for the answer to an earlier one; then reading pauses."""
    connections: int = 1024
    """Connections at the same time. Beyond it idle ones are closed; without any, requests are a 503."""


def connection_limit() -> int:
    """Raise the soft limit of open files to the hard one and return how many clients it leaves room for.

    Each client may need a second descriptor, for its connection to Dify.
    """
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
