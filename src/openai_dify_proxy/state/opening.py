"""From STATE_URL to a store."""

from __future__ import annotations

from openai_dify_proxy.state.store import Store

EXCHANGE_TIMEOUT = 0.9
"""Seconds: below what a GuardedStore waits, so that its log has the reason."""


async def open_store(url: str, *, max_entries: int, timeout: float = EXCHANGE_TIMEOUT) -> Store:
    """Return the store at ``url``, a value of STATE_URL. It connects, or opens its file, on the first run.

    ``timeout`` is for one exchange with Valkey or Redis, connecting included.

    Raises SettingsError for a URL of Valkey or Redis that cannot be used, whatever the server may be.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "memory":
        from openai_dify_proxy.state.memory import MemoryStore  # noqa: PLC0415 - only what is used is loaded

        return MemoryStore(max_entries=max_entries)
    if scheme.lower() == "sqlite":
        from openai_dify_proxy.state.sqlite import SqliteStore  # noqa: PLC0415 - the same

        return SqliteStore(rest.removeprefix("/"), max_entries=max_entries)
    from openai_dify_proxy.state.servers import open_server  # noqa: PLC0415 - the same, and an extra
    from openai_dify_proxy.state.valkey import ValkeyStore  # noqa: PLC0415 - the same

    return ValkeyStore(open_server(url), max_entries=max_entries, timeout=timeout)
