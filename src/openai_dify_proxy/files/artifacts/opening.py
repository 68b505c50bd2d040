"""Opens the service of artifacts from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from openai_dify_proxy.files.artifacts.directory import DirectoryStorage
from openai_dify_proxy.files.artifacts.download import Downloads
from openai_dify_proxy.files.artifacts.eraser import Eraser
from openai_dify_proxy.files.artifacts.fetches import Fetches
from openai_dify_proxy.files.artifacts.records import ArtifactRecords
from openai_dify_proxy.files.artifacts.service import Artifacts
from openai_dify_proxy.files.artifacts.storage import ArtifactStorage
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.upstream.dify import DifyClient

FOLDER: Final = "artifacts"
"""The folder in the directory or the object store of the pictures."""


@asynccontextmanager
async def open_artifacts(
    settings: Settings,
    store: GuardedStore,
    secret: Callable[[], Awaitable[bytes | None]],
    dify: DifyClient,
    *,
    is_limited: Callable[[str], bool],
    now: Callable[[], float],
) -> AsyncIterator[Artifacts]:
    """Open the service; at the end of the block, abort its fetches. Raises SettingsError.

    ``secret`` returns the key of the state's hashes. ``is_limited`` says whether the turns in a Dify are limited.
    ``now`` returns seconds since 1970.
    """
    storage = open_storage(settings)
    records = ArtifactRecords(store, secret, now)
    eraser = Eraser(storage, limit=settings.artifact_storage_bytes, now=now)
    downloads = Downloads(
        dify,
        storage,
        eraser,
        max_bytes=settings.max_artifact_bytes,
        max_picture_bytes=settings.max_picture_bytes,
    )
    fetches = Fetches(records, downloads, is_limited)
    eraser.start()
    try:
        yield Artifacts(records, storage, fetches, ttl=settings.link_ttl, public_url=settings.public_url)
    finally:
        await fetches.close()
        await eraser.close()


def open_storage(settings: Settings) -> ArtifactStorage:
    """Return the store of the contents. Raises SettingsError."""
    if settings.picture_store is None:
        return DirectoryStorage(Path(settings.image_storage_dir).expanduser().absolute() / FOLDER)
    from openai_dify_proxy.pictures.object_folders import open_object_folder  # noqa: PLC0415 - its library is an extra

    folder = open_object_folder(settings.picture_store.get_secret_value(), FOLDER, network=settings)
    from openai_dify_proxy.files.artifacts.objects import ObjectStorage  # noqa: PLC0415 - as before

    return ObjectStorage(folder.store)
