"""The files of the console, read and compressed once.

All files lie below a path that names their version, a hash of their contents. So they may be cached indefinitely, and
the modules import each other by relative paths. Only the page itself is asked for again.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from msgspec import Struct

MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""The types of the files that are served, by the end of their names; others are part of the source only."""

PAGE = "index.html"

LAZY = frozenset({"vendor/uplot.js"})
"""Scripts that a view loads when it is opened."""


class Asset(Struct, frozen=True):
    """A file, plain and compressed with gzip."""

    data: bytes
    compressed: bytes
    media_type: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'


class Assets(Struct, frozen=True):
    """The page, and the files that it loads below ``console/`` and the ``version``."""

    version: str
    page: Asset
    files: Mapping[str, Asset]


def load_assets() -> Assets:
    """Read the files of the console from the package."""
    root = files("openai_dify_proxy.console").joinpath("static")
    contents = dict(sorted(_contents(root, "")))
    version = hashlib.sha256(b"".join(name.encode() + data for name, data in contents.items())).hexdigest()[:12]
    page = _page(contents.pop(PAGE), f"console/{version}", contents)
    return Assets(version, _asset(PAGE, page), {name: _asset(name, data) for name, data in contents.items()})


def _contents(folder: Traversable, path: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _contents(entry, f"{path}{entry.name}/")
        elif _ending(entry.name) in MEDIA_TYPES:
            found.append((path + entry.name, entry.read_bytes()))
    return found


def _page(template: bytes, base: str, contents: Mapping[str, bytes]) -> bytes:
    """Return the page. It names all modules, so that a browser loads them at once and not one after the other."""
    scripts = [name for name in contents if name.endswith(".js") and name not in LAZY]
    preloads = "\n    ".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in scripts)
    return template.decode().replace("{base}", base).replace("{preloads}", preloads).encode()


def _asset(name: str, data: bytes) -> Asset:
    return Asset(data, gzip.compress(data, mtime=0), MEDIA_TYPES[_ending(name)])


def _ending(name: str) -> str:
    return name.rpartition(".")[2]
