"""The files that clients upload for later requests: in the state, each readable by its caller only, until they expire.

A content is stored in portions, then its record, and last the record's key in one of the caller's slots, which make the
list. A slot is taken atomically, so callers have a limited number of files without a lock. Entries that a crash leaves
behind expire. The state may remove the oldest entries of a caller that holds too many: a file that lacks a portion
counts as absent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from itertools import chain
from secrets import randbelow, token_hex
from typing import Final

import msgspec
from msgspec import Struct, structs

from openai_dify_proxy.errors import InvalidRequest, NotFound, StateUnreachable
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Add, Get, Operation, Put, Take
from openai_dify_proxy.translate.file_types import detect, extension_of, safe_name
from openai_dify_proxy.translate.history import KIND, SCOPE, STORED, keyed_hash
from openai_dify_proxy.translate.turn_request import FileKind, SentFile

PREFIX: Final = "file-"
MAX_STORED: Final = 500
"""Files of one caller."""

PORTION: Final = 4 * 1024 * 1024
"""Bytes of a content in one entry of the state."""

_PROBES: Final = 64
"""Slots that are tried at random before all are read."""


class StoredFile(Struct, frozen=True):
    """The record of a file; ``name`` and ``slot`` are its id and its place in the list. Times are in seconds.

    ``end_user`` is the hash of the end user who sent it, if the request named one.
    """

    name: str
    filename: str
    purpose: str
    kind: FileKind
    extension: str
    media_type: str
    size: int
    digest: str
    created_at: int
    expires_at: int
    slot: int = 0
    end_user: bytes = b""


_RECORD = msgspec.msgpack.Decoder(StoredFile)
_encode = msgspec.msgpack.Encoder().encode


class StoredFiles:
    """Stores files for ``ttl`` seconds, at most ``limit`` for a caller.

    ``secret`` returns the key of the state's hashes, None while it is unreachable; ``now`` returns seconds since 1970.
    Methods raise StateUnreachable while the state cannot be reached.
    """

    def __init__(
        self,
        store: GuardedStore,
        secret: Callable[[], Awaitable[bytes | None]],
        *,
        ttl: float,
        now: Callable[[], float],
        limit: int = MAX_STORED,
    ) -> None:
        self._limit = limit
        self._store = store
        self._secret = secret
        self._ttl = ttl
        self._now = now

    async def add(
        self, caller: str, filename: str, purpose: str, media_type: str, data: bytes, *, end_user: bytes = b""
    ) -> StoredFile:
        """Store a file, and return its record. ``end_user`` is the hash of the end user who sent it.

        Raises InvalidRequest if the caller has too many files.
        """
        found = detect(data, filename, media_type)
        created = int(self._now())
        record = StoredFile(
            name=f"{PREFIX}{token_hex(24)}",
            filename=_shown_name(filename, found.extension),
            purpose=purpose,
            kind=found.kind,
            extension=found.extension,
            media_type=found.media_type,
            size=len(data),
            digest=sha256(data).hexdigest(),
            created_at=created,
            expires_at=int(created + self._ttl),
            end_user=end_user,
        )
        keys = await self._keys(caller)
        record = structs.replace(record, slot=await self._take_slot(keys, record.name, caller))
        view = memoryview(data)
        for number, begin in enumerate(range(0, len(data), PORTION)):
            portion = bytes(view[begin : begin + PORTION])
            await self._run(Put(keys.portion(record.name, number), portion, self._ttl, caller))
        await self._run(Put(keys.record(record.name), _encode(record), self._ttl, caller))
        return record

    async def all(self, caller: str) -> list[StoredFile]:
        """Return the caller's files, oldest first."""
        keys = await self._keys(caller)
        slots = await self._run(*(Get(keys.slot(number)) for number in range(self._limit)))
        names = [value.decode() for value in slots if value is not None]
        records = await self._run(*(Get(keys.record(name)) for name in names)) if names else []
        decoded = [
            self._store.decode(keys.record(name), value, _RECORD.decode)
            for name, value in zip(names, records, strict=True)
        ]
        return sorted((record for record in decoded if record is not None), key=_age)

    async def find(self, caller: str, name: str) -> StoredFile | None:
        """Return the record of a file, or None if the caller has no such file."""
        key = (await self._keys(caller)).record(name)
        value = (await self._run(Get(key)))[0]
        return self._store.decode(key, value, _RECORD.decode)

    async def load(self, caller: str, name: str) -> StoredFile:
        """Return the record of a file. Raises NotFound."""
        record = await self.find(caller, name)
        if record is None:
            raise NotFound(f"No such File object: '{name[:100]}'.", param="file_id")
        return record

    async def content(self, caller: str, record: StoredFile) -> bytes | None:
        """Return the content of a file, or None if the state no longer has all of it."""
        keys = await self._keys(caller)
        data = bytearray()
        for number in range(-(-record.size // PORTION)):
            portion = (await self._run(Get(keys.portion(record.name, number), large=True)))[0]
            if portion is None:
                return None
            data += portion
        return bytes(data)

    async def remove(self, caller: str, record: StoredFile) -> None:
        keys = await self._keys(caller)
        portions = [keys.portion(record.name, number) for number in range(-(-record.size // PORTION))]
        removed = [keys.slot(record.slot), keys.record(record.name), *portions]
        await self._run(*(Take(key, caller) for key in removed))

    async def resolve(self, caller: str, file: SentFile, *, required: bool) -> SentFile:
        """Return a file that a request names by its id, with its type and name.

        Raises InvalidRequest for an unknown file if it is ``required``; else it stays without a digest.
        """
        record = await self.find(caller, file.file_id)
        if record is None:
            if required:
                raise InvalidRequest(
                    f"No such File object: '{file.file_id[:100]}'. It may have expired. Upload it again.",
                    param=file.param,
                    code="file_not_found",
                )
            return file
        return structs.replace(
            file,
            kind=record.kind,
            name=safe_name(record.filename),
            extension=record.extension,
            media_type=record.media_type,
            size=record.size,
            digest=record.digest,
        )

    async def _take_slot(self, keys: _Keys, name: str, caller: str) -> int:
        """Take a free slot. Expired files have none."""
        numbers = [randbelow(self._limit) for _ in range(_PROBES)]
        for number in chain(numbers, range(self._limit)):
            taken = await self._run(Add(keys.slot(number), name.encode(), self._ttl, caller))
            if taken[0] is None:
                return number
        raise InvalidRequest(
            f"This client has {self._limit} stored files. Delete some with DELETE /v1/files/{{file_id}}.",
            param="file",
            code="too_many_files",
        )

    async def _keys(self, caller: str) -> _Keys:
        secret = await self._secret()
        if secret is None:
            raise _unreachable()
        return _Keys(secret, caller)

    async def _run(self, *operations: Operation) -> list[bytes | None]:
        results = await self._store.run(*operations)
        if results is None:
            raise _unreachable()
        return results


class _Keys(Struct, frozen=True):
    """The keys of a caller's entries."""

    secret: bytes
    caller: str

    def record(self, name: str) -> str:
        return self._key("file", name)

    def portion(self, name: str, number: int) -> str:
        return self._key("file-portion", f"{name}.{number}")

    def slot(self, number: int) -> str:
        return self._key("file-slot", str(number))

    def _key(self, kind: str, name: str) -> str:
        return f"{kind}:{keyed_hash(self.secret, (KIND, kind), (SCOPE, self.caller), (STORED, name)).hex()}"


def _shown_name(filename: str, extension: str) -> str:
    """Return the name as the client sent it, without a directory, or one made from the extension."""
    name = safe_name(filename)
    return f"{name or 'file'}.{extension_of(filename) or extension}"


def _age(record: StoredFile) -> tuple[int, str]:
    return record.created_at, record.name


def _unreachable() -> StateUnreachable:
    return StateUnreachable("The server's state cannot be reached, so files are not available. Try again in a moment.")
