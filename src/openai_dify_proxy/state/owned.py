"""List the entries of one caller, for commands. It may take seconds, and no other run waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing

from openai_dify_proxy.state.opening import sqlite_path
from openai_dify_proxy.state.sqlite_file import open_database

PAGE = 1000


async def owned_keys(url: str, owner: str, kinds: Sequence[str]) -> list[str]:
    """Return the keys of an owner's entries of some ``kinds``. ``url`` is a value of STATE_URL other than ``memory://``.

    Raises OSError, sqlite3.Error, StateUnavailable, and the errors of the library for Valkey and Redis.
    """
    path = sqlite_path(url)
    if path is None:
        keys = await _of_server(url, owner)
    else:
        with closing(open_database(path)) as connection:
            keys = [key for (key,) in connection.execute("SELECT key FROM entries WHERE owner = ?", (owner,))]
    return [key for key in keys if key.partition(":")[0] in kinds]


async def _of_server(url: str, owner: str) -> list[str]:
    from openai_dify_proxy.state.servers import open_server  # noqa: PLC0415 - an optional extra
    from openai_dify_proxy.state.valkey_index import index_of  # noqa: PLC0415 - as above

    server = open_server(url)
    keys: list[str] = []
    try:
        async with asyncio.timeout(60):
            while len(keys) % PAGE == 0:
                (found,) = await server.exchange([("ZRANGE", index_of(owner), len(keys), len(keys) + PAGE - 1)])
                if not found:
                    break
                keys += [key.decode() for key in found]
    finally:
        await server.close()
    return keys
