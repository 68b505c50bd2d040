"""The settings for connections to Dify, Replicate, IPFS, object stores and fetched URLs."""

from __future__ import annotations

from dataclasses import dataclass

from openai_dify_proxy.settings.values import CertificateFile, Flag, ProxyExceptions, ProxyUrl


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Network: proxies and certificates towards Dify, Replicate, IPFS, object stores and fetched URLs"""

    https_proxy: ProxyUrl | None = None
    """The HTTP proxy for connections to `https://` URLs, as a tunnel (`CONNECT`).

    For example `http://user:password@proxy.example.com:3128`."""
    http_proxy: ProxyUrl | None = None
    """The HTTP proxy for connections to `http://` URLs."""
    no_proxy: ProxyExceptions = ()
    """Hosts that are reached directly: `dify.internal,.example.com,10.0.0.0/8`, also with a port; `*` for all.

    A name includes its subdomains. Loopback addresses are always reached directly."""
    proxy_fetches: Flag = False
    """Fetch the URLs in clients' requests through the proxy too.

    Only the proxy sees the addresses behind them, so it must refuse private ones. Without this setting, such a URL is
    an [error](operations.md#proxies-and-private-certificates) where a proxy applies."""
    extra_ca_certs: CertificateFile | None = None
    """A PEM file with certificates of authorities that are trusted in addition to the system's.

    The environment variable `SSL_CERT_FILE` names a file that replaces the system's."""
