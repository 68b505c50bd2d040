"""Stores pictures in an object store: S3 and compatible stores, Google Cloud Storage, Azure Blob Storage.

Objects have the same names as the files in a directory. Writing an object is atomic; records and the lease use
conditional writes where the store supports them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import structlog
from msgspec import Struct

from openai_dify_proxy.errors import SEE_LOG, NotFound, PictureNotStored
from openai_dify_proxy.pictures.object_errors import LIBRARY_MISSING, describe_store_error
from openai_dify_proxy.pictures.object_folders import ObjectStore, open_object_folder
from openai_dify_proxy.pictures.records import (
    PictureRecord,
    decode_record,
    encode_record,
    hash_of,
    is_removable,
    merge,
)
from openai_dify_proxy.settings import NetworkSettings, SettingsError
from openai_dify_proxy.wire.reading import UNREADABLE

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
except ImportError:
    raise SettingsError([LIBRARY_MISSING]) from None

if TYPE_CHECKING:
    from obstore import GetResult

LEASE: Final = "ipfs.lease"
LEASE_SECONDS = 30.0
RENEW_SECONDS = 10.0
SIGNED_SECONDS = 3600
CHANGE_TRIES = 20
ORPHAN_SECONDS = 3600.0
"""Age from which a picture without a record is an orphan: its writer must have died."""

MAX_OBJECT_BYTES = 256 * 1024 * 1024
"""The library allocates the announced size of an object, and ends the process if that fails."""

log = structlog.get_logger(__name__)


class _Lease(Struct, frozen=True):
    owner: str
    until: float


class ObjectPictures:
    """A PictureStore. ``serve`` is "redirect" for signed links, "proxy" to serve the bytes from this process."""

    rescan_seconds = 5.0

    def __init__(
        self,
        store: ObjectStore,
        *,
        serve: Literal["proxy", "redirect"],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._clock = clock
        self._serve = serve
        self._owner = token_hex(8)
        self._renewed = 0.0

    async def put(self, data: bytes, record: PictureRecord) -> PictureRecord:
        def complete(stored: PictureRecord | None) -> PictureRecord:
            return record if stored is None else merge(stored, record)

        with _errors_translated():
            attributes = {"Content-Type": record.media_type, "Cache-Control": "public, max-age=31536000, immutable"}
            # The name is the hash of the bytes, so overwriting an object does not change it.
            await obstore.put_async(self._store, _path(record.name), data, attributes=attributes, use_multipart=False)
            return await self._change(record.name, complete) or record

    async def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        data = await self._read(_path(name), start, end)
        if data is None:
            raise NotFound("The picture does not exist.")
        return data

    async def record(self, name: str) -> PictureRecord | None:
        if hash_of(name) is None:
            return None
        data = await self._read(_record_path(name))
        return _record_in(data, name) if data is not None else None

    async def update(self, name: str, change: Callable[[PictureRecord], PictureRecord]) -> PictureRecord | None:
        if hash_of(name) is None:
            return None
        with _errors_translated():
            return await self._change(name, lambda stored: None if stored is None else change(stored))

    async def _change(
        self, name: str, change: Callable[[PictureRecord | None], PictureRecord | None]
    ) -> PictureRecord | None:
        """Replace the record by the result of ``change``, unless that is None. Retries after concurrent changes."""
        path, marker = _record_path(name), _marker(name)
        for _ in range(CHANGE_TRIES):
            try:
                found = await obstore.get_async(self._store, path)
                stored, e_tag = _record_in(await _content(found), name), found.meta["e_tag"]
            except FileNotFoundError:
                found, stored, e_tag = None, None, None
            changed = change(stored)
            if changed is None:
                return None
            if changed.ipfs == "pending":
                await self._write(marker, b"")
            data = encode_record(changed)
            if changed != stored and not await (
                self._create(path, data) if found is None else self._replace(path, data, e_tag)
            ):
                continue
            if changed.ipfs != "pending" and stored is not None:
                await self._delete(marker)
            return changed
        raise PictureNotStored(
            f"The record of the picture could not be updated in {CHANGE_TRIES} attempts. Send the request again.",
            started=True,
        )

    async def records(self, *, before: float | None = None) -> AsyncIterator[PictureRecord]:
        with _errors_translated():
            async for page in obstore.list(self._store):
                for item in page:
                    folder, _, name = item["path"].rpartition("/")
                    written = item["last_modified"].timestamp()
                    if folder == "pending" or hash_of(name) is None or (before is not None and written >= before):
                        continue
                    record = await self.record(name)
                    if record is not None and (before is None or record.created < before):
                        yield record

    async def pending(self) -> list[str]:
        with _errors_translated():
            pages = [page async for page in obstore.list(self._store, "pending")]
        names = (item["path"].rpartition("/")[2] for page in pages for item in page)
        return [name for name in names if hash_of(name)]

    async def delete(self, name: str, *, before: float | None = None) -> bool:
        """Delete a picture. Object stores have no conditional delete, so the record is checked immediately before."""
        record = await self.record(name)
        if record is None or (before is not None and not is_removable(record, before)):
            return False
        with _errors_translated():
            for path in (_record_path(name), _path(name), _marker(name)):
                await self._delete(path)
        return True

    async def orphans(self) -> AsyncIterator[str]:
        pictures: dict[str, str] = {}
        records: set[str] = set()
        with _errors_translated():
            async for page in obstore.list(self._store):
                for item in page:
                    folder, _, name = item["path"].rpartition("/")
                    if folder != "pending" and (digest := hash_of(name)) is not None:
                        pictures[digest] = name
                    elif name.endswith(".json"):
                        records.add(name.removesuffix(".json"))
        for digest in pictures.keys() - records:
            yield pictures[digest]

    async def remove_orphan(self, name: str) -> bool:
        with _errors_translated():
            if await self._written_at(_record_path(name)) is not None:
                return False
            paths = (_path(name), _marker(name))
            times = [written for path in paths if (written := await self._written_at(path)) is not None]
            if not times or max(times) > self._clock() - ORPHAN_SECONDS:
                return False
            for path in paths:
                await self._delete(path)
            return True

    async def _written_at(self, path: str) -> float | None:
        try:
            return (await obstore.head_async(self._store, path))["last_modified"].timestamp()
        except FileNotFoundError:
            return None

    async def signed_link(self, name: str) -> str | None:
        if self._serve == "proxy":
            return None
        with _errors_translated():
            return await obstore.sign_async(self._store, "GET", _path(name), timedelta(seconds=SIGNED_SECONDS))

    async def take_lease(self) -> bool:
        """Take the lease, an object with its owner and expiry. The first process to replace an expired one owns it."""
        now = self._clock()
        if now < self._renewed + RENEW_SECONDS:
            return True
        with _errors_translated():
            return await self._try_lease(now)

    async def close(self) -> None:
        if self._renewed:
            self._renewed = 0.0
            with _errors_translated():
                await self._delete(LEASE)

    async def _try_lease(self, now: float) -> bool:
        mine = msgspec.json.encode(_Lease(self._owner, now + LEASE_SECONDS))
        try:
            found = await obstore.get_async(self._store, LEASE)
        except FileNotFoundError:
            taken = await self._create(LEASE, mine)
        else:
            lease = _read_lease(await _content(found))
            if lease is not None and lease.owner != self._owner and lease.until > now:
                return False
            taken = await self._replace(LEASE, mine, found.meta["e_tag"])
        self._renewed = now if taken else 0.0
        return taken

    async def _read(self, path: str, start: int = 0, end: int | None = None) -> bytes | None:
        with _errors_translated():
            try:
                if end is not None:
                    return bytes(await obstore.get_range_async(self._store, path, start=start, end=end))
                found = await obstore.get_async(self._store, path)
                return (await _content(found))[start:]
            except FileNotFoundError:
                return None

    async def _write(self, path: str, data: bytes) -> None:
        await obstore.put_async(self._store, path, data, use_multipart=False)

    async def _create(self, path: str, data: bytes) -> bool:
        try:
            await obstore.put_async(self._store, path, data, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except NotSupportedError:  # the last writer wins, so two processes may upload the same picture
            await self._write(path, data)
        return True

    async def _replace(self, path: str, data: bytes, e_tag: str | None) -> bool:
        try:
            await obstore.put_async(self._store, path, data, mode={"e_tag": e_tag}, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except NotSupportedError:
            await self._write(path, data)
        return True

    async def _delete(self, path: str) -> None:
        try:
            await obstore.delete_async(self._store, path)
        except FileNotFoundError:
            pass  # S3 does not report this either


def open_object_store(
    url: str, *, network: NetworkSettings | None = None, clock: Callable[[], float] = time.time
) -> ObjectPictures:
    """Open the store at ``url``, as ``open_object_folder`` does. Raises SettingsError."""
    folder = open_object_folder(url, network=network)
    return ObjectPictures(folder.store, serve=folder.serve, clock=clock)


def _path(name: str) -> str:
    digest = hash_of(name)
    if digest is None:
        raise NotFound("The picture does not exist.")
    return f"{digest[:2]}/{digest[2:4]}/{name}"


def _record_path(name: str) -> str:
    return _path(name).rpartition(".")[0] + ".json"


def _marker(name: str) -> str:
    return f"pending/{name}"


def _record_in(data: bytes, name: str) -> PictureRecord | None:
    record = decode_record(data)
    return record if record is not None and record.name == name else None


async def _content(found: GetResult) -> bytes:
    """Return the bytes of an object. Raises ValueError if it announces more than ``MAX_OBJECT_BYTES``."""
    if found.meta["size"] > MAX_OBJECT_BYTES:
        raise ValueError(f"an object has {found.meta['size']} bytes, more than {MAX_OBJECT_BYTES}")
    return bytes(await found.bytes_async())


def _read_lease(data: bytes) -> _Lease | None:
    try:
        return msgspec.json.decode(data, type=_Lease)
    except UNREADABLE:
        return None


@contextmanager
def _errors_translated() -> Iterator[None]:
    """Raise PictureNotStored for errors of the store. Their texts, which may name hosts, go to the log only."""
    try:
        yield
    except (BaseError, OSError, ValueError) as exc:
        raise PictureNotStored(
            f"The object store rejected the request. {SEE_LOG}",
            started=True,
            log=describe_store_error(exc),
        ) from exc
