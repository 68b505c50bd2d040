from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests import parts
from tests.unread_recordings import Orphans

HOME = tempfile.TemporaryDirectory(prefix="home-")
"""The home directory in tests, since a server stores its state and pictures there by default."""


def pytest_configure(config: pytest.Config) -> None:
    # uv shares the cache that scripts/setup filled.
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault("UV_CACHE_DIR", str(Path(cache) / "uv"))
    os.environ["HOME"] = HOME.name
    config.pluginmanager.register(Orphans())


def pytest_unconfigure() -> None:
    HOME.cleanup()


def pytest_xdist_auto_num_workers() -> int:
    """Start two workers per core, since many tests wait for servers and timers."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(scope="session")
def node() -> Path:
    """Return the Node.js program."""
    return parts.node()


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """Return the directory in which Node.js finds the JavaScript clients."""
    return parts.node_clients()
