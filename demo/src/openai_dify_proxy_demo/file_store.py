"""The files that runs produce: their contents, and links to them that are signed and expire, as Dify's do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from openai_dify_proxy_demo.common import store_bounded

LINK_SECONDS = 300
"""Dify's `FILES_ACCESS_TIMEOUT`: how long a link is valid."""

INTERNAL_ORIGIN = "http://api:5001"
"""The host in Dify's containers, which other machines cannot resolve."""

MAX_FILES = 1000
"""The maximum number of stored files; the oldest are dropped."""

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class MadeFile:
    """A file that a run produced."""

    name: str
    """The name that Dify shows, with an extension."""
    kind: str
    """Dify's type: `image` or `document`."""
    media_type: str
    content: bytes
    padding: int = 0
    """The number of zero bytes after the content."""
    origin: str | None = None
    """The scheme and host of its links, an empty string for relative links; None selects the server's own."""
    age: int = 0
    """How many seconds ago its links were signed."""
    missing: bool = False
    """Whether Dify has lost the content."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def size(self) -> int:
        return len(self.content) + self.padding

    @property
    def extension(self) -> str:
        return "." + self.name.rpartition(".")[2]

    def chunks(self) -> Iterator[bytes]:
        """Yield the content and its padding."""
        yield self.content
        zeros = bytes(CHUNK_BYTES)
        for start in range(0, self.padding, CHUNK_BYTES):
            yield zeros[: self.padding - start]


@dataclass
class FileStore:
    """The produced files of one server. Links are valid only at the server that signed them."""

    secret: bytes
    files: dict[str, MadeFile] = field(default_factory=dict)
    painted: dict[str, int] = field(default_factory=dict)
    """How many pictures each text has led to."""

    def add(self, made: MadeFile) -> MadeFile:
        store_bounded(self.files, made.id, made, MAX_FILES)
        return made

    def next_seed(self, text: str) -> int:
        """Return another number for each picture of the same text."""
        store_bounded(self.painted, text, self.painted.get(text, -1) + 1, MAX_FILES)
        return self.painted[text]

    def link(self, made: MadeFile, base_url: str, extension: str | None = None) -> str:
        """Return a newly signed link. `extension` replaces the file's own, as Dify's `.bin` does."""
        timestamp, nonce = str(int(time.time()) - made.age), uuid.uuid4().hex
        query = f"timestamp={timestamp}&nonce={nonce}&sign={self._sign(made.id, timestamp, nonce)}"
        origin = base_url if made.origin is None else made.origin
        return f"{origin}/files/tools/{made.id}{extension or made.extension}?{query}"

    def find(self, file_id: str) -> MadeFile | None:
        """Return a file whose content Dify still has."""
        made = self.files.get(file_id)
        return None if made is None or made.missing else made

    def verifies(self, file_id: str, query: Mapping[str, str]) -> bool:
        """Return whether the parameters of a link are signed for this file, at most `LINK_SECONDS` ago."""
        timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
        expected = self._sign(file_id, timestamp, nonce)
        signed = hmac.compare_digest(query.get("sign", "").encode(), expected.encode())
        return signed and time.time() - int(timestamp) <= LINK_SECONDS

    def _sign(self, file_id: str, timestamp: str, nonce: str) -> str:
        digest = hmac.digest(self.secret, f"file-preview|{file_id}|{timestamp}|{nonce}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode()
