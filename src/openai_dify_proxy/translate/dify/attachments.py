"""The files and citations of an answer."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from msgspec import field

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.events import Citation, Citations, Event, FileProduced
from openai_dify_proxy.wire.dify import FileData, RetrievedPassage

MAX_LINK_SEARCHES = 100
"""Files whose link is looked for in the text. Later files count as not linked, so that many files in a long text cost
no more."""

_URL_KEYS = ("url", "source_url", "source", "link")


class Attachments(Entity):
    """Collects files and passages until the end of a turn.

    ``origin`` (scheme and host of Dify) completes relative links. Dify signs a link again each time it sends it, so
    only the link's path identifies the file.
    """

    origin: str
    _files: dict[str, FileData] = field(default_factory=dict)
    _intermediate: dict[str, FileData] = field(default_factory=dict)
    _passages: list[dict[str, Any]] = field(default_factory=list)
    _cited: bool = False

    @property
    def has_files(self) -> bool:
        return bool(self._files or self._intermediate)

    def add_file(self, file: FileData) -> None:
        if link := _link(file):
            self._files.setdefault(path_of(link), file)

    def add_files(self, files: list[FileData] | None) -> None:
        """Add the files of the app, but not the user's files that Dify lists with them."""
        for file in files or []:
            if file.transfer_method in (None, "tool_file"):
                self.add_file(file)

    def add_files_of_node(self, files: list[FileData] | None) -> None:
        """Add the files of a node, which belong to the answer only if its text links to them."""
        for file in files or []:
            if file.transfer_method == "tool_file" and (link := _link(file)):
                self._intermediate.setdefault(path_of(link), file)

    def add_retrieved(self, passages: list[RetrievedPassage]) -> None:
        """Add a knowledge node's results, for streams without the ``retriever_resources`` of ``message_end``."""
        self._passages += [read_passage(item) for item in passages]

    def cite(self, passages: list[dict[str, Any]], out: list[Event]) -> None:
        """Emit the turn's citations, once."""
        if passages and not self._cited:
            self._cited = True
            out.append(Citations(tuple(read_citation(passage) for passage in passages)))

    def finish(self, text: str, out: list[Event]) -> None:
        """Emit the files, each with a flag that ``text`` links to it, and the passages unless some were cited."""
        for path, file in list(self._intermediate.items())[:MAX_LINK_SEARCHES]:
            if path in text:
                self._files.setdefault(path, file)
        for number, (path, file) in enumerate(self._files.items()):
            link = _link(file)
            url = self.origin + link if link.startswith("/") else link
            kind = file.type or "custom"
            linked = number < MAX_LINK_SEARCHES and path in text
            out.append(FileProduced(url, kind, file.filename, file.mime_type, file.size, linked=linked))
        self.cite(self._passages, out)


def _link(file: FileData) -> str:
    return file.url or file.remote_url or ""


def path_of(link: str) -> str:
    """Return the path of a signed link, which does not depend on the signature."""
    try:
        return urlsplit(link).path
    except ValueError:  # not a URL; passed on unchanged
        return link


def read_passage(item: RetrievedPassage) -> dict[str, Any]:
    """Return a knowledge node's result in the format of ``retriever_resources``."""
    return {**(item.metadata or {}), "content": item.content, "title": item.title}


def read_citation(passage: dict[str, Any]) -> Citation:
    """Return the citation for a record of ``retriever_resources``. Its URL may be in the document's metadata."""
    title = passage.get("title") or passage.get("document_name") or passage.get("dataset_name") or ""
    metadata = passage.get("doc_metadata")
    candidates = [metadata.get(key) for key in _URL_KEYS] if isinstance(metadata, dict) else []
    candidates.append(passage.get("url"))
    url = next(
        (link for link in candidates if isinstance(link, str) and link.startswith(("http://", "https://"))), None
    )
    return Citation(str(title), url, passage)
