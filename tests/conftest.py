from __future__ import annotations

from pathlib import Path

import pytest

from tests import parts
from tests.orphans import Orphans


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Orphans())


@pytest.fixture(scope="session")
def node() -> Path:
    """The Node.js program."""
    return parts.node()


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """The folder in which Node.js finds the JavaScript clients."""
    return parts.node_clients()
