"""Stores the contents of artifacts in the object store of the pictures, in a folder of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import contextmanager

import obstore
from obstore.exceptions import BaseError

from openai_dify_proxy.errors import SEE_LOG, FileNotStored, NotFound
from openai_dify_proxy.files.artifacts.storage import PORTION, StoredContent
from openai_dify_proxy.pictures.object_errors import describe_store_error
from openai_dify_proxy.pictures.object_folders import ObjectStore

PART = 5 * 1024 * 1024
"""Bytes of one part of an upload, the smallest size that S3 accepts. One or two are in memory."""


class ObjectStorage:
    """An ArtifactStorage in ``store``."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def write(self, name: str, portions: AsyncIterable[bytes]) -> None:
        with _errors_translated():
            await obstore.put_async(self._store, name, aiter(portions), chunk_size=PART, max_concurrency=1)

    async def read(self, name: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        if start == end:
            return  # stores reject an empty range
        with _errors_translated():
            try:
                found = await obstore.get_async(self._store, name, options={"range": (start, end)})
            except FileNotFoundError:
                raise NotFound("The file has been removed.") from None
            async for portion in found.stream(min_chunk_size=PORTION):
                yield bytes(portion)

    async def contents(self) -> list[StoredContent]:
        found: list[StoredContent] = []
        with _errors_translated():
            async for page in obstore.list(self._store):
                found += [StoredContent(one["path"], one["size"], one["last_modified"].timestamp()) for one in page]
        return found

    async def remove(self, name: str) -> None:
        with _errors_translated():
            try:
                await obstore.delete_async(self._store, name)
            except FileNotFoundError:
                pass  # S3 does not report this either


@contextmanager
def _errors_translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        log = describe_store_error(error)
        raise FileNotStored(f"The object store rejected the request. {SEE_LOG}", log=log) from error
