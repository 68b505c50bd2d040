"""The service of artifacts on a real directory, for tests without a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from openai_dify_proxy.files.artifacts.directory import DirectoryStorage
from openai_dify_proxy.files.artifacts.download import Downloads
from openai_dify_proxy.files.artifacts.eraser import Eraser
from openai_dify_proxy.files.artifacts.fetches import Fetches
from openai_dify_proxy.files.artifacts.records import ArtifactRecords
from openai_dify_proxy.files.artifacts.service import Artifacts
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.upstream.dify import DifyClient


def artifacts_in(
    directory: Path,
    store: GuardedStore,
    secret: Callable[[], Awaitable[bytes | None]],
    dify: DifyClient,
    now: Callable[[], float],
) -> Artifacts:
    """Return a service whose fetches end with the test's event loop."""
    storage = DirectoryStorage(directory)
    records = ArtifactRecords(store, secret, now)
    eraser = Eraser(storage, limit=10**9, now=now)
    downloads = Downloads(dify, storage, eraser, max_bytes=10**6, max_picture_bytes=10**6)
    fetches = Fetches(records, downloads, lambda _url: True)
    return Artifacts(records, storage, fetches, ttl=60, public_url=None)
