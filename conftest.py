from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TextIO, cast

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests import parts
from tests.measured_tests import MeasuredTests
from tests.unread_recordings import Orphans

# Hypothesis derives the same examples in every run, without deadlines, so that results are reproducible.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],  # streams are large examples, and CI machines are slow
)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.register_profile(
    "long", deadline=None, max_examples=100_000, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "fuzz",
    deadline=None,
    database=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "1000")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cov-tests", metavar="FOLDER", help="with --cov: measure only while tests of this folder run")


def pytest_configure(config: pytest.Config) -> None:
    # uv shares the cache that scripts/setup filled.
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    os.environ.setdefault("UV_CACHE_DIR", str(Path(cache) / "uv"))
    os.environ["HOME"] = HOME.name
    config.pluginmanager.register(Orphans())
    if folder := config.getoption("cov_tests"):
        config.pluginmanager.register(MeasuredTests(config.rootpath / folder))
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
