from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import parts
from tests.components.servers import IpfsNode, S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(parts.s3_server(), tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="session")
def shared_ipfs(node: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IpfsNode]:
    """Start a node that no test stops."""
    with IpfsNode(node, parts.ipfs_node(), tmp_path_factory.mktemp("ipfs")) as running:
        yield running
