"""Stores the contents of artifacts in a directory that only its owner can read."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, ParamSpec, TypeVar

from openai_dify_proxy.errors import SEE_LOG, FileNotStored, NotFound
from openai_dify_proxy.files.artifacts.storage import PORTION, StoredContent

LEFTOVER_SECONDS = 3600.0
"""Age from which an unfinished file is removed: its writer must have died."""

_UNFINISHED = "unfinished"

_P = ParamSpec("_P")
_R = TypeVar("_R")


class DirectoryStorage:
    """An ArtifactStorage in ``directory``, which is created with the first content."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def write(self, name: str, portions: AsyncIterable[bytes]) -> None:
        unfinished = self._directory / _UNFINISHED / token_hex(8)
        creating = asyncio.ensure_future(_in_thread(_create, unfinished))
        try:
            file = await asyncio.shield(creating)
            async for portion in portions:
                await _in_thread(file.write, portion)
            await _in_thread(_publish, file, unfinished, self._directory / name)
        finally:
            (await creating).close()  # if this was cancelled meanwhile, the thread may still be creating it
            unfinished.unlink(missing_ok=True)

    async def read(self, name: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        with await _in_thread(_open, self._directory / name, start) as file:
            while start < end:
                portion = await _in_thread(file.read, min(PORTION, end - start))
                if not portion:
                    raise FileNotStored("The stored file is shorter than it was.")
                start += len(portion)
                yield portion

    async def contents(self) -> list[StoredContent]:
        return await _in_thread(lambda: list(self._contents()))

    async def remove(self, name: str) -> None:
        await _in_thread(self._remove, self._directory / name)

    # The following methods run in threads.

    def _contents(self) -> Iterator[StoredContent]:
        for folder in self._folders():
            with suppress(FileNotFoundError):  # removed meanwhile
                for path in folder.iterdir():
                    found = path.stat()
                    if folder.name == _UNFINISHED:
                        if found.st_mtime < time.time() - LEFTOVER_SECONDS:
                            path.unlink()
                    else:
                        yield StoredContent(f"{folder.name}/{path.name}", found.st_size, found.st_mtime)

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self._directory.iterdir() if path.name == _UNFINISHED or path.name.isdecimal()]
        except FileNotFoundError:
            return []

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty, or gone
            path.parent.rmdir()


def _make(folder: Path) -> None:
    """Create ``folder`` and its missing parents, for this user only."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _create(path: Path) -> BinaryIO:
    _make(path.parent)
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def _publish(file: BinaryIO, unfinished: Path, path: Path) -> None:
    """Give a complete file its name. Its content reaches the disk first."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    for _ in range(2):  # an empty folder may be removed meanwhile
        _make(path.parent)
        with suppress(FileNotFoundError):
            unfinished.replace(path)
            return
    raise FileNotFoundError(f"{path.parent} disappears")


def _open(path: Path, start: int) -> BinaryIO:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound("The file has been removed.") from None
    file.seek(start)
    return file


@contextmanager
def _errors_translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileNotStored(f"The disk of the server failed. {SEE_LOG}", log=str(error)) from error


async def _in_thread(work: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
    with _errors_translated():
        return await asyncio.to_thread(work, *args, **kwargs)
