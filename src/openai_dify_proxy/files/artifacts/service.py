"""The files that Dify apps produce, behind links of the proxy.

A link exists as soon as an answer names the file: a random id, the time at which it expires, and a signature with the
state's secret. The file is fetched in the background. The record in the state lets every process serve the link.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import lru_cache

from msgspec import Struct, field

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.errors import FilePending, NotFound, UpstreamFailed
from openai_dify_proxy.events import FileProduced
from openai_dify_proxy.files.artifacts.fetches import Fetch, Fetches
from openai_dify_proxy.files.artifacts.names import PATH, ArtifactName, new_name, sign, text_in, verify
from openai_dify_proxy.files.artifacts.records import Artifact, ArtifactRecords, hash_user
from openai_dify_proxy.files.artifacts.storage import ArtifactStorage
from openai_dify_proxy.translate.dify.file_links import FileLinks
from openai_dify_proxy.translate.dify.signed_links import SignedLink, SignedLinks
from openai_dify_proxy.translate.file_types import extension_of, safe_name

MAX_FILES_OF_TURN = 50
"""Links of one turn that are replaced and fetched; later ones stay as Dify sent them."""

WAIT_SECONDS = 30.0
"""How long a request waits for the fetch of its file."""

RECORD_SECONDS = 5.0
"""How long a request waits for a record that another process is about to write."""

POLL_SECONDS = 0.25
"""The pause between two looks at a record of another process."""

_EXTENSIONS = {"image": "png", "audio": "mp3", "video": "mp4"}
"""The extension in a link if Dify's own has no better one than ``bin``, by Dify's class of file."""

Address = Callable[[], str]
"""Returns the address of this server for the client of a request."""


class Artifacts:
    """Produces links for the files of turns, and finds the files behind links.

    ``ttl`` is how many seconds a link works; ``public_url`` overrides the address in a request.
    """

    def __init__(
        self,
        records: ArtifactRecords,
        storage: ArtifactStorage,
        fetches: Fetches,
        *,
        ttl: float,
        public_url: str | None,
    ) -> None:
        self._records = records
        self._storage = storage
        self._fetches = fetches
        self._ttl = ttl
        self._public_url = public_url

    def links(
        self, base_url: str, caller: str, user: str, secret: bytes | None, address: Address | None
    ) -> FileLinks | None:
        """Return what replaces the links of one turn of ``caller`` for Dify's ``user``, whose Dify is at ``base_url``.

        None if there is no address to link to, or while the state, whose ``secret`` signs links, cannot be reached.
        """
        if secret is None or (address is None and self._public_url is None):
            return None
        turn = _TurnArtifacts(self, base_url, caller, user, secret, address)
        return FileLinks(_signed_links(base_url), turn.replace)

    async def find(self, text: str) -> Artifact:
        """Return the fetched artifact with the name in a link; wait for its fetch if that is still running.

        Raises NotFound for every other text, UpstreamFailed if the fetch failed, FilePending after ``WAIT_SECONDS``,
        and StateUnreachable.
        """
        name = verify(await self._records.secret(), text)
        if name is None or name.expires <= self._records.now():
            raise _not_found()
        artifact = await self._fetched(name)
        if artifact.status == "failed":
            raise UpstreamFailed(f"The file could not be read from Dify. {artifact.error}")
        return artifact

    def read(self, artifact: Artifact, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from ``start`` up to, not including, ``end``. Raises NotFound and FileNotStored."""
        return self._storage.read(artifact.storage_name, start, end)

    async def is_link(self, url: str) -> bool:
        """Return whether ``url`` is a link of this server to an artifact, also an expired one."""
        text = text_in(url)
        return text is not None and verify(await self._records.secret(), text) is not None

    async def load(self, url: str, caller: str, limit: int) -> bytes:
        """Return the content behind a link of this server, for the caller whose turn produced it.

        Waits for a running fetch. Raises NotFound, also for files of other callers and of more than ``limit`` bytes,
        and the errors of ``find``.
        """
        artifact = await self.find(text_in(url) or "")
        if artifact.caller != caller:
            raise _not_found()
        if artifact.size > limit:
            raise NotFound(f"The file has {artifact.size} bytes. The limit is {limit} bytes.")
        async with aclosing(self.read(artifact, 0, artifact.size)) as portions:
            return b"".join([portion async for portion in portions])

    def produce(self, turn: _TurnArtifacts, link: SignedLink, file: FileProduced | None) -> _Produced | None:
        """Start the fetch of a file; None if too many wait already."""
        if self._fetches.full:
            return None
        name = new_name(int(self._records.now() + self._ttl))
        url = turn.base_url + link.target
        user = hash_user(turn.secret, turn.user)
        artifact = Artifact(name.id, name.expires, turn.caller, url, _title(file) or "file", user=user)
        kind = "" if file is None else file.type
        extension = link.extension if extension_of(link.path) not in ("", "bin") else _EXTENSIONS.get(kind, "bin")
        address = self._public_url or ("" if turn.address is None else turn.address())
        ours = f"{address.rstrip('/')}{PATH}{sign(turn.secret, name)}.{extension}"
        return _Produced(ours, self._fetches.start(artifact))

    def rename(self, fetch: Fetch, title: str) -> None:
        self._fetches.rename(fetch, title)

    async def _fetched(self, name: ArtifactName) -> Artifact:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (waited := loop.time() - began) < WAIT_SECONDS:
            fetch = self._fetches.find(name.id)
            if fetch is not None:
                return await _ended(fetch, WAIT_SECONDS - waited)
            artifact = await self._records.get(name)
            if artifact is None:
                if waited > RECORD_SECONDS:
                    raise _not_found()
            elif artifact.status != "fetching":
                return artifact
            elif artifact.leased_until < self._records.now() and not self._fetches.full:
                self._fetches.start(artifact)
                continue
            await asyncio.sleep(POLL_SECONDS)
        raise _pending()


class _Produced(Struct):
    """A link of the proxy, and its fetch."""

    link: str
    fetch: Fetch


class _TurnArtifacts(Entity):
    """The links of one turn: one for each file, however often Dify signs it."""

    artifacts: Artifacts
    base_url: str
    caller: str
    user: str
    secret: bytes
    address: Address | None
    _produced: dict[str, _Produced] = field(default_factory=dict)

    def replace(self, link: SignedLink, file: FileProduced | None) -> str | None:
        produced = self._produced.get(link.path)
        if produced is None:
            if len(self._produced) >= MAX_FILES_OF_TURN:
                return None
            produced = self.artifacts.produce(self, link, file)
            if produced is None:
                return None
            self._produced[link.path] = produced
        elif title := _title(file):
            self.artifacts.rename(produced.fetch, title)
        return produced.link


async def _ended(fetch: Fetch, seconds: float) -> Artifact:
    try:
        async with asyncio.timeout(seconds):
            await fetch.ended.wait()
    except TimeoutError:
        raise _pending() from None
    return fetch.artifact


def _title(file: FileProduced | None) -> str:
    """Return the name of a file without its extension, or an empty string."""
    return "" if file is None else safe_name(file.filename or file.type)


def _not_found() -> NotFound:
    return NotFound("The file does not exist, or its link has expired.")


def _pending() -> FilePending:
    return FilePending("The file is still being fetched from Dify. Try again in a moment.", retry_after=5)


_signed_links = lru_cache(maxsize=256)(SignedLinks)
