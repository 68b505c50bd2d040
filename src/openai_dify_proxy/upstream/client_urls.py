"""URLs that clients name, before anything is done with them.

Replicate reads most of them itself, so the name behind one is not resolved here; a literal address that is not on the
public internet is refused all the same, since it means somebody's own machines wherever it is read.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import unquote

from yarl import URL

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.upstream.fetch import NamedHosts, has_credentials, is_public


class ClientUrls:
    """``hosts`` are those that the operator named, as ``OutputFetcher`` takes them: any address is fine there."""

    def __init__(self, hosts: Collection[str]) -> None:
        self._named = NamedHosts(hosts)

    def check(self, text: str, param: str) -> str:
        """``text`` again. Raises InvalidRequest with ``param``."""
        try:
            url = URL(text)
        except ValueError:
            raise _refused(param) from None
        if url.scheme not in ("http", "https") or not url.raw_host or has_credentials(url):
            raise _refused(param)
        if not self._named.hold(url) and not _may_be_public(url.raw_host):
            raise InvalidRequest(f"{param} points to an address that is not on the public internet.", param=param)
        return text


def _refused(param: str) -> InvalidRequest:
    return InvalidRequest(f"{param} must be an http or https URL, without a user or password.", param=param)


def _may_be_public(host: str) -> bool:
    """Names may be; addresses are by their range, in every spelling that the system's own resolver understands."""
    host = unquote(host).rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return is_public(str(ipaddress.ip_address(host)))
    except ValueError:
        pass  # an odd spelling, or a name
    try:
        return is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        return True
