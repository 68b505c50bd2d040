"""``uv.lock`` is what scripts install, unasked whether it still fits; so that is asked here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]


def wanted(requirements: Iterable[str]) -> set[tuple[str, SpecifierSet]]:
    return {(requirement.name, requirement.specifier) for requirement in map(Requirement, requirements)}


def locked(entries: Iterable[dict[str, Any]]) -> set[tuple[str, SpecifierSet]]:
    return {(entry["name"], SpecifierSet(entry.get("specifier", ""))) for entry in entries}


def test_lock_was_made_from_this_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = declared["project"]
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    metadata = next(package for package in lock["package"] if package["name"] == project["name"])["metadata"]
    optional = [name for names in project.get("optional-dependencies", {}).values() for name in names]
    assert locked(metadata["requires-dist"]) == wanted([*project["dependencies"], *optional])
    assert locked(metadata["requires-dev"]["dev"]) == wanted(declared["dependency-groups"]["dev"])


def test_lock_files_name_only_the_public_index() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    registries = {package["source"].get("registry", "") for package in lock["package"]}
    assert registries <= {"", "https://pypi.org/simple"}
    assert "://" not in (ROOT / "tests/clients/node/package-lock.json").read_text()
