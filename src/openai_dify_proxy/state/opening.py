"""Opens the store that STATE_URL names."""

from __future__ import annotations

from pathlib import Path

from openai_dify_proxy.settings.state_urls import is_shared
from openai_dify_proxy.state.eviction import MAX_BYTES
from openai_dify_proxy.state.store import STATE_TIMEOUT, Store


def sqlite_path(url: str) -> Path | None:
    """Return the file that ``url``, a value of STATE_URL, names, or None if it names no file."""
    scheme, _, rest = url.partition("://")
    return Path(rest.removeprefix("/")).expanduser().absolute() if scheme.lower() == "sqlite" else None


async def open_store(
    url: str,
    *,
    max_entries: int,
    max_bytes: int = MAX_BYTES,
    timeout: float = STATE_TIMEOUT,
    exclusive: bool = False,
) -> Store:
    """Return the store at ``url``, a value of STATE_URL. It connects, or opens its file, on the first run.

    ``timeout`` limits one run, in seconds. ``exclusive`` is for the only process of a server, which answers from memory
    while no other process uses the file of the state.

    Raises SettingsError for a Valkey or Redis URL that the library rejects.
    """
    if not is_shared(url):
        from openai_dify_proxy.state.memory import MemoryStore  # noqa: PLC0415 - load only the used store

        return MemoryStore(max_entries=max_entries, max_bytes=max_bytes)
    if path := sqlite_path(url):
        from openai_dify_proxy.state.sqlite import SqliteStore  # noqa: PLC0415 - as above

        return SqliteStore(path, max_entries=max_entries, max_bytes=max_bytes, timeout=timeout, exclusive=exclusive)
    from openai_dify_proxy.state.servers import open_server  # noqa: PLC0415 - as above, and an optional extra
    from openai_dify_proxy.state.valkey import ValkeyStore  # noqa: PLC0415 - as above

    return ValkeyStore(open_server(url), max_entries=max_entries, max_bytes=max_bytes, timeout=timeout)
