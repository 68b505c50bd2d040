from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.state.servers import ValkeyCluster, ValkeyServer, valkey_program


@pytest.fixture(scope="session")
def program() -> Path:
    return valkey_program()


@pytest.fixture(scope="session")
def _shared(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(program, tmp_path_factory.mktemp("valkey")).running() as server:
        yield server


@pytest.fixture
def valkey(_shared: ValkeyServer) -> ValkeyServer:
    """Return an empty server that no test stops."""
    _shared.ask("FLUSHALL")
    return _shared


@pytest.fixture
def own_valkey(program: Path, tmp_path: Path) -> Iterator[ValkeyServer]:
    """Start a server that the test may stop or break."""
    with ValkeyServer(program, tmp_path / "valkey").running() as server:
        yield server


@pytest.fixture(scope="session")
def _shared_cluster(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(program, tmp_path_factory.mktemp("cluster")).running() as cluster:
        yield cluster


@pytest.fixture
def cluster(_shared_cluster: ValkeyCluster) -> ValkeyCluster:
    """Return an empty cluster that no test stops."""
    for server in _shared_cluster.servers:
        server.ask("FLUSHALL")
    return _shared_cluster
