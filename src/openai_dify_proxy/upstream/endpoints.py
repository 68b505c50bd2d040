"""URLs as the HTTP client connects to them."""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct


class Origin(Struct, frozen=True):
    """The scheme, host and port of a connection."""

    scheme: str
    host: str
    port: int


class Endpoint(Struct, frozen=True):
    """A parsed URL: ``path`` includes the query, ``authority`` is the Host header."""

    origin: Origin
    authority: str
    path: str


def parse_url(url: str) -> Endpoint:
    """Parse an absolute http or https URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return Endpoint(Origin(parts.scheme, parts.hostname or "", port), parts.netloc.rpartition("@")[2], path or "/")
