from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import parts
from tests.packaging.commands import ROOT, run


@pytest.fixture(scope="session")
def uv() -> Path:
    return parts.uv()


@pytest.fixture(scope="session")
def dist(uv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that ``scripts/build`` wrote."""
    directory = tmp_path_factory.mktemp("dist")
    printed = run(ROOT / "scripts/build", directory, PATH=f"{os.environ['PATH']}:{uv.parent}")
    assert sorted(printed.splitlines()) == [f"Wrote {file}" for file in sorted(directory.glob("openai*"))]
    return directory


@pytest.fixture(scope="session")
def installed(uv: Path, dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the locked packages and the two wheels."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(
        uv, "sync", "--quiet", "--frozen", "--no-dev", "--extra=demo", "--no-install-workspace",
        UV_PROJECT_ENVIRONMENT=str(venv),
    )  # fmt: skip
    # Without an index, this succeeds only if the wheels and the locked packages meet all requirements.
    run(
        uv, "pip", "install", "--quiet", "--python", venv, "--offline", "--no-index", "--find-links", dist,
        "openai-dify-proxy[demo]",
    )  # fmt: skip
    return venv / "bin"
