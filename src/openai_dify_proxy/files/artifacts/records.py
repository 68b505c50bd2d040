"""The records of artifacts, in the state: the source of each file, and the status of its fetch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
from msgspec import Struct

from openai_dify_proxy.errors import StateUnreachable
from openai_dify_proxy.files.artifacts.names import ArtifactName
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Get, Operation, Put
from openai_dify_proxy.translate.history import KIND, STORED, keyed_hash

BUCKET_SECONDS = 600
"""Files that expire within the same ten minutes share a folder, so that erasing them needs no records."""


class Artifact(Struct, frozen=True):
    """A file of an app. ``url`` is Dify's link at the configured address, ``caller`` who may send the link back.

    ``user`` is the hash of Dify's user whose turn produced it; empty in records of versions without it.

    While it is ``fetching``, the process that fetches it renews ``leased_until``; ``error`` says why it ``failed``.
    ``inline`` marks a picture that was decoded. Times are in seconds since 1970.
    """

    id: str
    expires: int
    caller: str
    url: str
    title: str
    status: Literal["fetching", "ready", "failed"] = "fetching"
    leased_until: float = 0.0
    size: int = 0
    extension: str = ""
    media_type: str = ""
    inline: bool = False
    error: str = ""
    user: bytes = b""

    @property
    def storage_name(self) -> str:
        return f"{self.expires // BUCKET_SECONDS}/{self.id}"

    @property
    def filename(self) -> str:
        return f"{self.title}.{self.extension}"


ARTIFACT: Final = "artifact"
"""The kind of the records' keys."""

read_artifact = msgspec.msgpack.Decoder(Artifact).decode
_encode = msgspec.msgpack.Encoder().encode


class ArtifactRecords:
    """The records. Methods raise StateUnreachable.

    ``secret`` returns the key of the state's hashes, None while it is unreachable; ``now`` returns seconds since 1970.
    """

    def __init__(
        self, store: GuardedStore, secret: Callable[[], Awaitable[bytes | None]], now: Callable[[], float]
    ) -> None:
        self._store = store
        self._secret = secret
        self.now = now

    async def secret(self) -> bytes:
        secret = await self._secret()
        if secret is None:
            raise _unreachable()
        return secret

    async def get(self, name: ArtifactName) -> Artifact | None:
        key = await self._key(name.id)
        return self._store.decode(key, (await self._run(Get(key)))[0], read_artifact)

    async def put(self, artifact: Artifact) -> None:
        ttl = artifact.expires - self.now()
        if ttl > 0:
            await self._run(Put(await self._key(artifact.id), _encode(artifact), ttl, artifact.caller))

    async def _key(self, name: str) -> str:
        return f"{ARTIFACT}:{keyed_hash(await self.secret(), (KIND, ARTIFACT), (STORED, name)).hex()}"

    async def _run(self, *operations: Operation) -> list[bytes | None]:
        results = await self._store.run(*operations)
        if results is None:
            raise _unreachable()
        return results


def hash_user(secret: bytes, user: str) -> bytes:
    """Return the hash of Dify's ``user`` that records hold."""
    return keyed_hash(secret, (KIND, "artifact user"), (STORED, user))[:16]


def _unreachable() -> StateUnreachable:
    return StateUnreachable("The server's state cannot be reached, so files are not available. Try again in a moment.")
