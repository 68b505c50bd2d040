"""Connection failures as sentences for the operator: the fault, its place and the remedy."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

Failure = Literal[
    "refused",
    "unresolved",
    "timeout",
    "plain_http",
    "https",
    "closed",
    "closed_plain",
    "reset_handshake",
    "untrusted",
    "expired",
    "not_yet_valid",
    "wrong_host",
    "tls",
    "other",
]

PERMANENT: frozenset[Failure] = frozenset(
    {"plain_http", "https", "untrusted", "expired", "not_yet_valid", "wrong_host", "tls"}
)
"""Failures that last until an operator changes something, so that a retry is useless."""


class ServerAddress(Struct, frozen=True):
    """A server as the operator knows it. ``setting`` is the setting that holds its URL."""

    service: str
    host: str
    port: int
    setting: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.service} at {host}:{self.port}"


def describe_failure(failure: Failure, server: ServerAddress, detail: str = "") -> str:
    """Return the sentences for ``failure``. ``detail`` is the limit for a timeout, else a reason without full stop."""
    return _SENTENCES[failure].format(
        server=server, service=server.service, host=server.host, setting=server.setting, detail=detail
    )


def expects_https(status: int, body: bytes) -> bool:
    """Return whether an answer to plain HTTP says that the port serves HTTPS, as nginx, Go and Apache word it."""
    return status == 400 and _HTTPS_EXPECTED.search(body) is not None


_HTTPS_EXPECTED = re.compile(
    rb"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server|speaking plain HTTP to an SSL-enabled"
)

_SENTENCES: dict[Failure, str] = {
    "refused": "{server} refused the connection. Check that it is running and that {setting} has the right port.",
    "unresolved": "The host name '{host}' of {service} cannot be resolved. Check it in {setting}, or check the DNS.",
    "timeout": "{server} did not answer within {detail}. Check {setting} and the firewalls in between.",
    "plain_http": "{server} answers in plain HTTP, not HTTPS. Use http:// in {setting}.",
    "https": "{server} expects HTTPS, not plain HTTP. Use https:// in {setting}.",
    "closed_plain": "{server} closed the connection without an answer. If it expects HTTPS, use https:// in {setting}.",
    "closed": "{server} closed the connection without an answer. Check its log.",
    "reset_handshake": "{server} closed the connection during the TLS handshake. "
    "If it does not serve HTTPS, use http:// in {setting}.",
    "untrusted": "The certificate of {server} is not trusted: {detail}. "
    "Add its issuer to the system's certificates, or set SSL_CERT_FILE.",
    "expired": "The certificate of {server} has expired. Renew it there.",
    "not_yet_valid": "The certificate of {server} is not valid yet. Check the clocks of both machines.",
    "wrong_host": "The certificate of {server} is not valid for '{host}'. Use a host name that it covers in {setting}.",
    "tls": "The TLS handshake with {server} failed: {detail}. Check the TLS versions and ciphers that it allows.",
    "other": "{server} cannot be reached: {detail}. Check {setting} and the network.",
}
