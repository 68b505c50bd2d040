"""Stores pictures in a directory: ``ab/cd/<sha256>.<extension>``, with a record in ``<sha256>.json``.

Names are derived from the bytes. A file is written under a temporary name, synced to the disk and renamed, so a name
never refers to partial content; a record is written after its picture. ``pending/`` contains an empty file for each
picture that is still to be uploaded, so finding them does not require reading all records. Every change to a picture
holds the lock of its name in ``locks/``, so only a killed process can leave a picture without a record.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO, ParamSpec, TypeVar

from openai_dify_proxy.errors import SEE_LOG, NotFound, PictureNotStored
from openai_dify_proxy.pictures.records import (
    PictureRecord,
    decode_record,
    encode_record,
    hash_of,
    is_removable,
    merge,
)

LEFTOVER_SECONDS = 3600.0
"""Age from which an unfinished file is removed: its writer must have died."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_P = ParamSpec("_P")
_R = TypeVar("_R")


class LocalPictures:
    """A PictureStore in ``directory``, which is created on demand; ``~`` is the home directory."""

    rescan_seconds = 1.0

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory).expanduser().absolute()
        self._lease: IO[bytes] | None = None

    def is_writable(self) -> bool:
        """Return whether the directory can be written, or created if it does not exist yet."""
        part = next(part for part in (self.directory, *self.directory.parents) if os.path.exists(part))  # noqa: PTH110 - it raises nothing
        return part.is_dir() and os.access(part, os.W_OK | os.X_OK)

    def restrict(self) -> None:
        """Take the permissions of other users on the directory away, and so on everything in it. Raises OSError."""
        if self.directory.is_dir() and (mode := self.directory.stat().st_mode) & 0o077:
            self.directory.chmod(mode & 0o700)

    async def put(self, data: bytes, record: PictureRecord) -> PictureRecord:
        return await _in_thread(self._put, data, record)

    async def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        return await _in_thread(self._read, name, start, end)

    async def record(self, name: str) -> PictureRecord | None:
        return await _in_thread(self._record, name)

    async def update(self, name: str, change: Callable[[PictureRecord], PictureRecord]) -> PictureRecord | None:
        return await _in_thread(self._update, name, change)

    async def records(self, *, before: float | None = None) -> AsyncIterator[PictureRecord]:
        for folder in await _in_thread(self._folders):
            for record in await _in_thread(_records_in, folder):
                if before is None or record.created < before:
                    yield record

    async def pending(self) -> list[str]:
        return await _in_thread(self._pending)

    async def delete(self, name: str, *, before: float | None = None) -> bool:
        return await _in_thread(self._delete, name, before)

    async def orphans(self) -> AsyncIterator[str]:
        for folder in await _in_thread(self._folders):
            for name in await _in_thread(_orphans_in, folder):
                yield name

    async def remove_orphan(self, name: str) -> bool:
        return await _in_thread(self._remove_orphan, name)

    async def signed_link(self, name: str) -> str | None:
        return None

    async def take_lease(self) -> bool:
        return self._lease is not None or await _in_thread(self._try_lease)

    async def close(self) -> None:
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    # The following methods run in threads.

    def _put(self, data: bytes, record: PictureRecord) -> PictureRecord:
        picture = self._path(record.name)
        with self._locked(record.name):
            self._make(picture.parent)
            if not (picture.is_file() and picture.stat().st_size == len(data)):
                self._write(picture, data)
            stored = self._record(record.name)
            return self._save(record if stored is None else merge(stored, record), stored)

    def _read(self, name: str, start: int, end: int | None) -> bytes:
        try:
            with self._path(name).open("rb") as file:
                file.seek(start)
                return file.read(-1 if end is None else end - start)
        except FileNotFoundError:
            raise NotFound("The picture does not exist.") from None

    def _record(self, name: str) -> PictureRecord | None:
        if hash_of(name) is None:
            return None
        try:
            record = decode_record(self._path(name).with_suffix(".json").read_bytes())
        except FileNotFoundError:
            return None
        return record if record is not None and record.name == name else None

    def _update(self, name: str, change: Callable[[PictureRecord], PictureRecord]) -> PictureRecord | None:
        if self._record(name) is None:
            return None
        with self._locked(name):
            stored = self._record(name)
            return None if stored is None else self._save(change(stored), stored)

    def _save(self, record: PictureRecord, stored: PictureRecord | None) -> PictureRecord:
        if record.ipfs == "pending":
            self._mark(record)
        if record != stored:
            self._write(self._path(record.name).with_suffix(".json"), encode_record(record))
        if record.ipfs != "pending":
            self._marker(record.name).unlink(missing_ok=True)
        return record

    def _pending(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.directory / "pending") if hash_of(name)]  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return []

    def _delete(self, name: str, before: float | None) -> bool:
        """Delete the record first: a picture without a record is not served."""
        if self._record(name) is None:
            return False
        with self._locked(name):
            record = self._record(name)
            if record is None or (before is not None and not is_removable(record, before)):
                return False
            path = self._path(name)
            path.with_suffix(".json").unlink()
            self._remove(path)
            return True

    def _remove_orphan(self, name: str) -> bool:
        path = self._path(name)
        with self._locked(name):
            if path.with_suffix(".json").exists():
                return False
            self._remove(path)
            return True

    def _remove(self, picture: Path) -> None:
        picture.unlink(missing_ok=True)
        self._marker(picture.name).unlink(missing_ok=True)

    def _folders(self) -> list[Path]:
        return sorted(self.directory.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]"))

    def _path(self, name: str) -> Path:
        digest = hash_of(name)
        if digest is None:
            raise NotFound("The picture does not exist.")
        return self.directory / digest[:2] / digest[2:4] / name

    def _marker(self, name: str) -> Path:
        return self.directory / "pending" / name

    def _mark(self, record: PictureRecord) -> None:
        marker = self._marker(record.name)
        if not marker.exists():
            self._make(marker.parent)
            marker.touch(mode=0o600)
            _sync(marker.parent)

    def _make(self, folder: Path) -> None:
        """Create ``folder`` and its missing parents, and sync their names to the disk."""
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync(folder.parent)

    def _write(self, path: Path, data: bytes) -> None:
        with self._written(data) as unfinished:
            unfinished.replace(path)
        _sync(path.parent)

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """Write ``data`` to a temporary file, which is removed at the end unless it was renamed."""
        folder = self.directory / "unfinished"
        if not folder.is_dir():
            self._make(folder)
        _remove_leftovers(folder)
        path = folder / token_hex(8)
        try:
            with open(path, "xb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock that pictures with the same first two digits share, across processes."""
        folder = self.directory / "locks"
        self._make(folder)
        with open(folder / self._path(name).name[:2], "ab", opener=_private) as file:
            _lock(file, wait=True)
            yield

    def _try_lease(self) -> bool:
        if not self.directory.is_dir():
            return False  # created with the first picture
        file = open(self.directory / "ipfs.lock", "ab", opener=_private)  # noqa: SIM115 - open while the lease is held
        try:
            _lock(file, wait=False)
        except OSError:
            file.close()
            return False
        self._lease = file
        return True


def _private(path: str, flags: int) -> int:
    """Open a file that only this user may read, if it is new."""
    return os.open(path, flags, 0o600)


async def _in_thread(work: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as exc:
        reason = "The disk of the server is full" if exc.errno in _FULL else "The disk of the server failed"
        raise PictureNotStored(
            f"{reason}, so pictures cannot be stored. {SEE_LOG}", started=True, log=str(exc)
        ) from exc


def _records_in(folder: Path) -> list[PictureRecord]:
    records = []
    for path in folder.glob("*.json"):
        try:
            record = decode_record(path.read_bytes())
        except FileNotFoundError:  # deleted meanwhile
            continue
        if record is not None and record.sha256 == path.stem:
            records.append(record)
    return records


def _orphans_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if hash_of(path.name) and not path.with_suffix(".json").exists()]


def _sync(folder: Path) -> None:
    """Sync the names in ``folder`` to the disk. Windows does that itself, and cannot open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Remove files of processes that died while writing."""
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < time.time() - LEFTOVER_SECONDS:
                path.unlink()
        except FileNotFoundError:  # finished meanwhile
            continue


def _lock(file: IO[bytes], *, wait: bool) -> None:
    """Lock ``file`` until it is closed. The kernel closes the files of killed processes.

    Without ``wait``, raises OSError if the file is locked.
    """
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - exists on Windows only

        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415 - does not exist on Windows

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
