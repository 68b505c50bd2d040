from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TextIO, cast

import pytest
import structlog

from tests import parts
from tests.unread_recordings import Orphans

HOME = tempfile.TemporaryDirectory(prefix="home-")
"""The home directory in tests, since a server stores its state and pictures there by default."""


class Descriptor:
    """Standard output as a file descriptor.

    Proxies log in threads of their own, while pytest reads and truncates ``sys.stdout``, which is not safe for threads:
    CPython 3.11 may crash.
    """

    def write(self, text: str) -> int:
        return os.write(1, text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Do nothing: ``write`` has no buffer."""


def pytest_configure(config: pytest.Config) -> None:
    # uv shares the cache that scripts/setup filled.
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault("UV_CACHE_DIR", str(Path(cache) / "uv"))
    os.environ["HOME"] = HOME.name
    config.pluginmanager.register(Orphans())
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(cast(TextIO, Descriptor())))


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
