"""Scripts install ``uv.lock`` without a check that it fits ``pyproject.toml``; these tests are that check."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]


PROXY = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEMO = tomllib.loads((ROOT / "demo/pyproject.toml").read_text())
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())


def wanted(requirements: Iterable[str]) -> set[tuple[str, SpecifierSet]]:
    """Names and versions; the lock has no versions for members of the workspace."""
    members = PROXY["tool"]["uv"]["sources"]
    return {
        (requirement.name, SpecifierSet() if requirement.name in members else requirement.specifier)
        for requirement in map(Requirement, requirements)
    }


def locked(entries: Iterable[dict[str, Any]]) -> set[tuple[str, SpecifierSet]]:
    return {(entry["name"], SpecifierSet(entry.get("specifier", ""))) for entry in entries}


def locked_metadata(name: str) -> dict[str, Any]:
    metadata: dict[str, Any] = next(package for package in LOCK["package"] if package["name"] == name)["metadata"]
    return metadata


@pytest.mark.parametrize("declared", [PROXY, DEMO], ids=["proxy", "demo"])
def test_lock_was_made_from_this_pyproject(declared: dict[str, Any]) -> None:
    project = declared["project"]
    metadata = locked_metadata(project["name"])
    optional = [name for names in project.get("optional-dependencies", {}).values() for name in names]
    assert locked(metadata["requires-dist"]) == wanted([*project["dependencies"], *optional])
    groups = declared.get("dependency-groups", {})
    assert metadata.get("requires-dev", {}).keys() == groups.keys()
    for name, entries in metadata.get("requires-dev", {}).items():
        assert locked(entries) == wanted(groups[name])


def test_extra_demo_is_the_demo_of_this_version() -> None:
    pin = f"{DEMO['project']['name']}=={PROXY['project']['version']}"
    assert PROXY["project"]["optional-dependencies"]["demo"] == [pin]


def test_lock_files_name_only_the_public_index() -> None:
    registries = {package["source"].get("registry", "") for package in LOCK["package"]}
    assert registries <= {"", "https://pypi.org/simple"}
    assert "://" not in (ROOT / "tests/clients/node/package-lock.json").read_text()
