from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.replicate import DemoReplicate
from tests.cli.program import Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def dify() -> Iterator[DemoServer]:
    with DemoServer() as server:
        yield server


@pytest.fixture
def replicate() -> Iterator[DemoReplicate]:
    with DemoReplicate() as server:
        yield server
