from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests import parts
from tests.unread_recordings import Orphans

HOME = tempfile.TemporaryDirectory(prefix="home-")
"""What a server keeps by default goes to its user's home, which is nobody's in tests."""


def pytest_configure(config: pytest.Config) -> None:
    os.environ["HOME"] = HOME.name
    config.pluginmanager.register(Orphans())


def pytest_unconfigure() -> None:
    HOME.cleanup()


def pytest_xdist_auto_num_workers() -> int:
    """Two workers for each core: many tests wait for servers and for time to pass."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(scope="session")
def node() -> Path:
    """The Node.js program."""
    return parts.node()


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """The folder in which Node.js finds the JavaScript clients."""
    return parts.node_clients()
