"""Checks the URLs in requests before they are passed to Replicate or fetched.

Replicate fetches most of them, so host names are not resolved here. Literal addresses outside the public internet are
rejected: they lead to a private network wherever they are fetched from.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import unquote

from yarl import URL

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.upstream.addresses import NamedHosts, has_credentials, is_public


class ClientUrls:
    """A check with exceptions: ``hosts``, in the format of ``OutputFetcher``, may have private addresses."""

    def __init__(self, hosts: Collection[str]) -> None:
        self._named = NamedHosts(hosts)

    def check(self, text: str, param: str) -> str:
        """Return ``text`` if it is acceptable. Raises InvalidRequest with ``param``."""
        try:
            url = URL(text)
            host = url.raw_host if url.host else None  # ``host`` decodes the name, which may be impossible
        except ValueError:
            raise _invalid(param) from None
        if url.scheme not in ("http", "https") or not host or has_credentials(url):
            raise _invalid(param)
        if not self._named.contain(url) and not _may_be_public(host):
            raise InvalidRequest(
                f"{param} points to an address outside the public internet. Send a public URL.", param=param
            )
        return text


def _invalid(param: str) -> InvalidRequest:
    return InvalidRequest(f"{param} must be an http or https URL, without a user or password.", param=param)


def _may_be_public(host: str) -> bool:
    """Accept names, and public addresses in every spelling that the system's resolver understands."""
    host = unquote(host).rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return is_public(str(ipaddress.ip_address(host)))
    except ValueError:
        pass  # an unusual spelling, or a name
    try:
        return is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        return True
    except ValueError:  # a NUL
        return False
