"""``uv.lock`` matches both ``pyproject.toml``; the scripts install it without that check."""

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


def declared_requirements(requirements: Iterable[str]) -> set[tuple[str, SpecifierSet]]:
    """Return names and specifiers; the lock has no specifiers for members of the workspace."""
    members = PROXY["tool"]["uv"]["sources"]
    return {
        (requirement.name, SpecifierSet() if requirement.name in members else requirement.specifier)
        for requirement in map(Requirement, requirements)
    }


def locked_requirements(entries: Iterable[dict[str, Any]]) -> set[tuple[str, SpecifierSet]]:
    return {(entry["name"], SpecifierSet(entry.get("specifier", ""))) for entry in entries}


def locked_metadata(name: str) -> dict[str, Any]:
    metadata: dict[str, Any] = next(package for package in LOCK["package"] if package["name"] == name)["metadata"]
    return metadata


@pytest.mark.parametrize("declared", [PROXY, DEMO], ids=["proxy", "demo"])
def test_lock_matches_pyproject(declared: dict[str, Any]) -> None:
    project = declared["project"]
    metadata = locked_metadata(project["name"])
    optional = [name for names in project.get("optional-dependencies", {}).values() for name in names]
    required = [*project["dependencies"], *optional]
    assert locked_requirements(metadata["requires-dist"]) == declared_requirements(required)
    groups = declared.get("dependency-groups", {})
    assert metadata.get("requires-dev", {}).keys() == groups.keys()
    for name, entries in metadata.get("requires-dev", {}).items():
        assert locked_requirements(entries) == declared_requirements(groups[name])


def test_extra_demo_pins_the_version() -> None:
    pin = f"{DEMO['project']['name']}=={PROXY['project']['version']}"
    assert PROXY["project"]["optional-dependencies"]["demo"] == [pin]


def test_lock_files_name_only_the_public_index() -> None:
    registries = {package["source"].get("registry", "") for package in LOCK["package"]}
    assert registries <= {"", "https://pypi.org/simple"}
    for lock in ("tests/clients/node", "tests/components/ipfs"):
        assert '"resolved"' not in (ROOT / lock / "package-lock.json").read_text()  # npm's default registry
