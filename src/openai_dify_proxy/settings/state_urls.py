"""The values of STATE_URL."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

from openai_dify_proxy.settings.extras import install_command
from openai_dify_proxy.settings.secret import SecretStr

_SERVERS = ("redis", "rediss", "valkey", "valkeys")
STATES = ("sqlite", *_SERVERS, *(f"{scheme}+cluster" for scheme in _SERVERS), "unix", "memory")
"""The schemes of STATE_URL. A final s means TLS; ``unix`` is the socket of a server."""


def is_shared(url: str) -> bool:
    """Return whether several processes can share the store at ``url``, a value of STATE_URL."""
    return url.partition(":")[0].lower() != "memory"


def check_state_url(url: SecretStr) -> SecretStr:
    """Return ``url``. Raises ValueError, with the predicate of a sentence, if no store has such a URL."""
    scheme, colon, rest = url.get_secret_value().partition("://")
    scheme = scheme.lower()
    if not colon or scheme not in STATES:
        raise ValueError(f"must begin with one of {', '.join(f'{known}://' for known in STATES)}")
    if scheme == "sqlite" and (not rest.startswith("/") or rest.endswith("/")):
        raise ValueError('must be the path of a file: "sqlite:///state.db", or "sqlite:////var/lib/proxy/state.db"')
    if scheme not in {"sqlite", "memory"}:
        if not _names_a_server(url.get_secret_value()):
            raise ValueError(
                f'must name a server: "{scheme}://user:password@host:6379". Write special characters as %xx'
            )
        if find_spec("redis") is None:
            raise ValueError(f"requires an extra package. Install it: {install_command('redis')}")
    return url


def _names_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError if invalid
    except ValueError:
        return False
    return bool(parts.path if parts.scheme == "unix" else parts.hostname)
