"""Opens the store that STATE_URL names."""

from __future__ import annotations

from pathlib import Path

from openai_dify_proxy.state.store import Store

EXCHANGE_TIMEOUT = 0.9
"""Seconds; shorter than the timeout of GuardedStore, so that the reason is logged."""


def sqlite_path(url: str) -> Path | None:
    """Return the file that ``url``, a value of STATE_URL, names, or None if it names no file."""
    scheme, _, rest = url.partition("://")
    return Path(rest.removeprefix("/")).expanduser().absolute() if scheme.lower() == "sqlite" else None


async def open_store(url: str, *, max_entries: int, timeout: float = EXCHANGE_TIMEOUT) -> Store:
    """Return the store at ``url``, a value of STATE_URL. It connects, or opens its file, on the first run.

    ``timeout`` limits one exchange with Valkey or Redis, connecting included, in seconds.

    Raises SettingsError for a Valkey or Redis URL that the library rejects.
    """
    scheme = url.partition("://")[0].lower()
    if scheme == "memory":
        from openai_dify_proxy.state.memory import MemoryStore  # noqa: PLC0415 - load only the used store

        return MemoryStore(max_entries=max_entries)
    if path := sqlite_path(url):
        from openai_dify_proxy.state.sqlite import SqliteStore  # noqa: PLC0415 - as above

        return SqliteStore(path, max_entries=max_entries)
    from openai_dify_proxy.state.servers import open_server  # noqa: PLC0415 - as above, and an optional extra
    from openai_dify_proxy.state.valkey import ValkeyStore  # noqa: PLC0415 - as above

    return ValkeyStore(open_server(url), max_entries=max_entries, timeout=timeout)
