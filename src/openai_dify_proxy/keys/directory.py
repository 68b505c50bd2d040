"""The keys that a server accepts, by their hashes: those of its settings, and those in the state.

A request costs one SHA-256 and one look-up, and no access to the state. A task reads the version of the stored keys
twice a second, and the keys when it has changed. While the state cannot be read, the keys that were read last count for
a limited time; then all but those of the settings are refused, since one of them may have been revoked.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Generic, TypeVar

import structlog
from msgspec import Struct

from openai_dify_proxy.errors import SEE_LOG, StateUnreachable
from openai_dify_proxy.keys.client_key import ClientKey
from openai_dify_proxy.keys.key_store import KeyFile, read_keys, read_version
from openai_dify_proxy.state.store import StateUnavailable, Store

POLL_SECONDS = 0.5

DIFY_KEY_PREFIX = "app-"
"""The prefix of Dify keys, which requests may contain instead of a client key."""

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


def hash_of_received(key: str) -> bytes:
    """Return the SHA-256 of a key in a request, which may hold any characters."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


class _Index(Struct, Generic[_T]):
    """Callers by the hashes of their keys; why further keys do not work; and when to make the next index."""

    callers: dict[bytes, _T]
    ended: dict[bytes, str]
    until: float


class KeyDirectory(Generic[_T]):
    """Finds callers by their keys.

    ``configured`` are the keys of the settings, and ``store`` holds the others (None for a state that no other
    process shares). ``make`` returns the caller of a key. Stored keys count for ``max_age`` seconds after they were
    read. ``now`` is a clock in seconds since the epoch, ``clock`` a monotonic one.
    """

    def __init__(
        self,
        configured: Sequence[ClientKey],
        store: Store | None,
        make: Callable[[ClientKey], _T],
        *,
        max_age: float,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configured = tuple(configured)
        self._configured_hashes = {bytes.fromhex(key.hash) for key in configured}
        self._store = store
        self._make = make
        self._max_age = max_age
        self._now = now
        self._clock = clock
        self._fresh_until = math.inf if store is None else -math.inf
        self._file: KeyFile | None = None
        self._known = store is None
        self._version: bytes | None = None
        self._failing = False
        self._index = self._make_index()
        self._task: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether requests need a key: there are or were keys, or it is unknown whether there are."""
        return bool(self._configured) or self._file is not None or not self._known

    @property
    def known(self) -> bool:
        """Whether the state was read since the start."""
        return self._known

    @property
    def version(self) -> object | None:
        """An object that stays the same as long as the keys do; None while the keys of the state cannot be trusted."""
        return self._index if self._clock() <= self._fresh_until else None

    def find(self, key: str) -> _T | None:
        """Return the caller that holds the key, or None. Raises StateUnreachable if that cannot be known now."""
        digest = hash_of_received(key)
        if key.startswith(DIFY_KEY_PREFIX) and self._clock() > self._fresh_until:
            return self._index.callers.get(digest)  # the state has no such keys
        return self.find_hash(digest)

    def find_hash(self, digest: bytes) -> _T | None:
        """Return the caller of the key with this SHA-256, or None. Raises the error of ``find``."""
        if self._clock() <= self._fresh_until or digest in self._configured_hashes:
            return self._index.callers.get(digest)
        raise self.unknown()

    def unknown(self) -> StateUnreachable:
        """Return the error for a request whose key cannot be checked."""
        return StateUnreachable(
            f"API keys cannot be checked now. Try again in a moment. {SEE_LOG}",
            log="The client keys in the state cannot be read. Check STATE_URL; a server without stored keys can use "
            "STATE_URL=memory://.",
        )

    @property
    def keys(self) -> tuple[ClientKey, ...]:
        """All keys, those of the settings first."""
        return (*self._configured, *(() if self._file is None else self._file.keys))

    def why_not(self, key: str) -> str | None:
        """Return why a key that was once valid no longer works, or None for any other."""
        return self._index.ended.get(hash_of_received(key))

    async def open(self) -> None:
        """Read the stored keys, and follow their changes until ``close``."""
        await self._refresh()
        self._task = asyncio.create_task(self._follow(), name="keys")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._refresh()
            except Exception:  # the task must survive bugs, or revoked keys would work until the next start
                log.exception("client_keys_not_read")

    async def _refresh(self) -> None:
        """Read the stored keys if they have changed, and drop the ones that have expired."""
        if self._store is not None:
            try:
                await self._read(self._store)
            except StateUnavailable as error:
                if not self._failing:
                    self._failing = True
                    log.warning("client_keys_not_read", reason=str(error))
        if self._now() >= self._index.until:
            self._index = self._make_index()

    async def _read(self, store: Store) -> None:
        read_at = self._clock()
        version = await read_version(store)
        if version != self._version or not self._known or self._failing:
            file = await read_keys(store)
            if file is None and self._file is not None:
                log.warning("client_keys_lost")
                file = KeyFile("")  # it has had keys, so it stays closed
            # A server of a cluster may have the version before another has the keys.
            self._version = file.version.encode() if file is not None and file.version else version
            self._file = file
            self._index = self._make_index()
            self._known = True
            self._failing = False
        self._fresh_until = read_at + self._max_age

    def _make_index(self) -> _Index[_T]:
        now = self._now()
        index: _Index[_T] = _Index({}, {}, math.inf)
        for key in self.keys:
            self._add(index, key, now)
        return index

    def _add(self, index: _Index[_T], key: ClientKey, now: float) -> None:
        own = bytes.fromhex(key.hash)
        if not key.works(now):
            index.callers.pop(own, None)  # a key that is also in the settings
            index.ended[own] = "was revoked" if key.revoked_at is not None else "has expired"
            return
        if key.expires_at is not None:
            index.until = min(index.until, key.expires_at)
        caller = self._make(key)
        index.callers[own] = caller
        for old in key.previous:
            if old.until > now:
                index.callers[bytes.fromhex(old.hash)] = caller
                index.until = min(index.until, old.until)
            else:
                index.ended[bytes.fromhex(old.hash)] = "was replaced by a new one"
