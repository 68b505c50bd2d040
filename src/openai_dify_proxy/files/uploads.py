"""Brings the files of a turn to Dify: uploads them side by side, each content once for an app key and Dify user.

The state maps the hash of a content to the id of Dify's copy until that may be gone. URLs are passed on where the app
accepts them; otherwise they are fetched and uploaded. URLs of earlier messages are always fetched, since Dify would
fail the turn for one that no longer works.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from hashlib import sha256

import structlog
from msgspec import Struct, structs

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.errors import ClientError, InvalidRequest, NotFound, ProxyError
from openai_dify_proxy.files.artifacts.service import Artifacts
from openai_dify_proxy.files.fetching import FETCH_SECONDS, UrlFiles
from openai_dify_proxy.files.stored_files import StoredFiles
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Get, Put
from openai_dify_proxy.translate.dify.file_plan import FilePlan, PlacedFile, too_large
from openai_dify_proxy.translate.dify.file_rules import size_limit
from openai_dify_proxy.translate.file_types import detect, safe_name
from openai_dify_proxy.translate.history import END_USER, FILE, KIND, keyed_hash
from openai_dify_proxy.translate.turn_request import FileContents, SentFile
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.wire.dify import FileReference, SystemParameters

COPY_SECONDS = 24 * 3600.0
"""How long Dify's copy of a file is used again. Dify keeps uploads longer, unless its operator removes them."""

EXTRA_UPLOADS = 1
"""Connections to one Dify for uploads beside those of the slots: one of the two that are for stop calls."""

Worker = Callable[[], Awaitable[None]]

log = structlog.get_logger(__name__)


class KnownCopies(Entity):
    """Dify's copies of contents, as far as one turn uses them.

    ``used`` is whether the turn's last request names one. ``lost`` is true once Dify has rejected one: the contents are
    then uploaded again.
    """

    used: bool = False
    lost: bool = False


class Destination(Struct, frozen=True):
    """Where files go: the app, Dify's user, the caller whose stored files may be used, and Dify's size limits.

    ``secret`` is the key of the state's hashes, None while the state is unreachable. URLs are read until
    ``fetch_until`` (in the loop's time): the turn holds a slot meanwhile. ``copies`` are those that the turn uses.
    """

    app: DifyApp
    user: str
    caller: str
    sizes: SystemParameters | None
    secret: bytes | None
    fetch_until: float
    copies: KnownCopies

    def key(self, digest: str) -> str:
        """Return the state's key of an upload."""
        assert self.secret is not None
        parts = (KIND, self.app.url), (KIND, self.app.key), (END_USER, self.user), (FILE, digest)
        return f"upload:{keyed_hash(self.secret, *parts).hex()}"


class FileUploads:
    """Uploads files. ``max_bytes`` limits a fetched file, in addition to Dify's limits."""

    def __init__(
        self,
        dify: DifyClient,
        store: GuardedStore,
        urls: UrlFiles,
        stored: StoredFiles,
        artifacts: Artifacts,
        *,
        max_bytes: int,
    ) -> None:
        self._dify = dify
        self._stored = stored
        self._artifacts = artifacts
        self._store = store
        self._urls = urls
        self._max_bytes = max_bytes
        self._extra: dict[str, asyncio.Semaphore] = {}

    async def place(self, plan: FilePlan, contents: FileContents | None, destination: Destination) -> FilePlan:
        """Return the plan with references to files in Dify.

        Raises ProxyError if a new file cannot be sent. Earlier ones then have no reference.
        """
        destination.copies.used = False
        distinct = {(placed.file.identity, placed.kind): placed for placed in plan.placed}
        done: dict[tuple[str, str], FileReference | ProxyError] = {}
        waiting = deque(distinct.items())

        async def work() -> None:
            while waiting:
                key, placed = waiting.popleft()
                try:
                    done[key] = await self._reference(placed, contents, destination)
                except ProxyError as error:
                    if error.param is None and isinstance(error, ClientError):
                        error.param = placed.file.param
                    done[key] = error

        await self._side_by_side(work, destination.app.url, len(distinct))
        return FilePlan(tuple(_placed(placed, done) for placed in plan.placed), plan.ignored)

    async def _side_by_side(self, work: Worker, url: str, count: int) -> None:
        """Run ``work`` once in the turn's own slot, and beside it while an extra connection is free."""
        extra = self._extra.setdefault(url, asyncio.Semaphore(EXTRA_UPLOADS))
        if count < 2 or extra.locked():
            await work()
            return
        async with extra:
            await asyncio.gather(work(), work())

    async def _reference(
        self, placed: PlacedFile, contents: FileContents | None, destination: Destination
    ) -> FileReference:
        file = placed.file
        if file.upload_id:
            return FileReference(placed.kind, "local_file", upload_file_id=file.upload_id)
        ours = bool(file.url) and await self._artifacts.is_link(file.url)
        if file.url and placed.new and placed.rules.remote and not ours:
            return FileReference(placed.kind, "remote_url", url=self._urls.check(file.url, file.param))
        if not placed.rules.local:
            raise InvalidRequest(
                f"This model accepts files by URL only. Send '{file.param}' as an http or https URL.",
                param=file.param,
                code="unsupported_file_type",
            )
        if file.url:
            data = await self._load(file, destination) if ours else await self._fetch(file, destination)
            placed = _known(placed, data)
            return await self._copy_of(placed, destination) or await self._upload(placed, data, destination)
        if (copy := await self._copy_of(placed, destination)) is not None:
            return copy
        content = None if contents is None else contents.get(file.digest)
        if content is None and file.file_id and file.digest:
            record = await self._stored.find(destination.caller, file.file_id)
            content = None if record is None else await self._stored.content(destination.caller, record)
        if content is None:
            raise InvalidRequest(
                f"The content of '{file.param}' is not available any more. Send it again.",
                param=file.param,
                code="file_not_found",
            )
        return await self._upload(placed, content, destination)

    async def _fetch(self, file: SentFile, destination: Destination) -> bytes:
        limit = min(self._max_bytes, size_limit(file.kind, file.extension, destination.sizes))
        try:
            async with asyncio.timeout_at(destination.fetch_until):
                return await self._urls.read(file.url, limit, file.param)
        except TimeoutError:
            raise InvalidRequest(
                f"The URLs of this request took longer than {FETCH_SECONDS:g} s. Send the contents instead.",
                param=file.param,
            ) from None

    async def _load(self, file: SentFile, destination: Destination) -> bytes:
        """Return the content behind a link of this server, as Dify produced it."""
        limit = min(self._max_bytes, size_limit(file.kind, file.extension, destination.sizes))
        try:
            return await self._artifacts.load(file.url, destination.caller, limit)
        except NotFound as error:
            raise InvalidRequest(
                f"'{file.param}' is a link to a file that is not available. {error.message}",
                param=file.param,
                code="file_not_found",
            ) from None

    async def _copy_of(self, placed: PlacedFile, destination: Destination) -> FileReference | None:
        """Return Dify's copy of a content, if one is known."""
        if destination.secret is None or not placed.file.digest or destination.copies.lost:
            return None
        found = await self._store.run(Get(_copy_key(placed, destination)))
        if found is None or found[0] is None:
            return None
        destination.copies.used = True
        return FileReference(placed.kind, "local_file", upload_file_id=found[0].decode())

    async def _upload(self, placed: PlacedFile, data: bytes, destination: Destination) -> FileReference:
        file = placed.file
        limit = size_limit(file.kind, file.extension, destination.sizes)
        if len(data) > limit:
            raise too_large(file, limit)
        upload_id = await self._dify.upload(
            destination.app,
            destination.user,
            name=f"{file.name or placed.kind}.{_extension(placed)}",
            media_type=file.media_type,
            data=data,
        )
        if destination.secret is not None:
            key = _copy_key(placed, destination)
            await self._store.run(Put(key, upload_id.encode(), COPY_SECONDS, destination.caller))
        log.info("file_uploaded", kind=placed.kind, size=len(data))
        return FileReference(placed.kind, "local_file", upload_file_id=upload_id)


def _placed(placed: PlacedFile, done: dict[tuple[str, str], FileReference | ProxyError]) -> PlacedFile:
    result = done[placed.file.identity, placed.kind]
    if isinstance(result, FileReference):
        return structs.replace(placed, reference=result)
    if placed.new:
        raise result
    log.info("earlier_file_omitted", reason=result.message)
    return placed


def _copy_key(placed: PlacedFile, destination: Destination) -> str:
    return destination.key(f"{placed.file.digest}.{_extension(placed)}")


def _extension(placed: PlacedFile) -> str:
    """Return the extension, in the spelling that the app lists."""
    extension = placed.file.extension or "bin"
    return placed.rules.extensions.get(extension, extension) if placed.kind == "custom" else extension


def _known(placed: PlacedFile, data: bytes) -> PlacedFile:
    """Return a fetched file with its type. Raises InvalidRequest if the app does not accept it."""
    file = placed.file
    found = detect(data, f"{file.name}.{file.extension}")
    kind = placed.rules.kind_for(found.kind, found.extension)
    if kind is None:
        raise InvalidRequest(
            f"Unsupported file: '{file.param}' is of type '{found.extension}'. This model accepts: "
            f"{placed.rules.described}.",
            param=file.param,
            code="unsupported_file_type",
        )
    known = structs.replace(
        file,
        kind=found.kind,
        name=safe_name(file.name),
        extension=found.extension,
        media_type=found.media_type,
        size=len(data),
        digest=sha256(data).hexdigest(),
    )
    return structs.replace(placed, file=known, kind=kind)
