"""The client keys in the state, which the command line changes and all servers read.

All keys are one entry, ``keys``, and beside it ``keys-version`` has a random text that changes with them, so that
servers learn of a change by reading a few bytes. The entries have no owner and no expiry: the state never evicts them,
and an empty list still shows that this server has had keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from secrets import token_hex
from typing import TypeVar

from msgspec import Struct, json

from openai_dify_proxy.keys.changes import KeyProblem, Keys
from openai_dify_proxy.keys.client_key import ClientKey
from openai_dify_proxy.state.store import Add, Get, Put, StateUnavailable, Store, Take
from openai_dify_proxy.wire.reading import UNREADABLE

KEYS = "keys"
VERSION = "keys-version"
LOCK = "keys-lock"
LOCK_SECONDS = 10.0
WAIT_SECONDS = 0.05

_T = TypeVar("_T")


class KeyFile(Struct, frozen=True):
    """The stored keys, and the version that ``keys-version`` holds."""

    version: str
    keys: tuple[ClientKey, ...] = ()


_FILE = json.Decoder(KeyFile)


async def read_version(store: Store) -> bytes | None:
    """Return the version of the stored keys, or None if there were never any. Raises StateUnavailable."""
    return (await store.run(Get(VERSION)))[0]


async def read_keys(store: Store) -> KeyFile | None:
    """Return the stored keys, or None if there were never any.

    Raises StateUnavailable, also for keys that cannot be read.
    """
    value = (await store.run(Get(KEYS, large=True)))[0]
    if value is None:
        return None
    try:
        return _FILE.decode(value)
    except UNREADABLE as error:
        raise StateUnavailable(f"the entry {KEYS!r} cannot be read: {type(error).__name__}") from None


async def change_keys(store: Store, change: Callable[[Keys], tuple[Keys, _T]]) -> _T:
    """Apply ``change`` to the stored keys, store the result, and return what the change returns beside it.

    One process at a time changes them. Raises StateUnavailable, KeyProblem, and the errors of ``change``.
    """
    await _lock(store)
    try:
        file = await read_keys(store)
        keys, result = change(() if file is None else file.keys)
        version = token_hex(8)
        await store.run(Put(KEYS, json.encode(KeyFile(version, keys))), Put(VERSION, version.encode()))
        return result
    finally:
        await store.run(Take(LOCK))


async def _lock(store: Store) -> None:
    try:
        async with asyncio.timeout(LOCK_SECONDS + 5):
            while (await store.run(Add(LOCK, b"1", LOCK_SECONDS)))[0] is not None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(WAIT_SECONDS)
    except TimeoutError:
        raise KeyProblem("Another process is changing the keys. Try again in a moment.") from None
