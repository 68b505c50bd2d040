"""The libraries of the console and the docs site are the files that their packages published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "src/openai_dify_proxy/console/static/vendor", ROOT / "docs/assets/vendor"]
LIBRARIES = {folder: json.loads((folder / "vendor.json").read_text(encoding="utf-8")) for folder in FOLDERS}
FILES = {
    folder / name: file["sha256"]
    for folder, libraries in LIBRARIES.items()
    for library in libraries
    for name, file in library["files"].items()
}


@pytest.mark.parametrize("file", FILES, ids=[path.name for path in FILES])
def test_a_library_is_unchanged(file: Path) -> None:
    assert hashlib.sha256(file.read_bytes()).hexdigest() == FILES[file], "run scripts/vendor"


@pytest.mark.parametrize("folder", FOLDERS, ids=["console", "docs"])
def test_every_library_is_listed_with_version_and_licence(folder: Path) -> None:
    assert set(folder.iterdir()) == {file for file in FILES if file.parent == folder} | {folder / "vendor.json"}
    for library in LIBRARIES[folder]:
        assert library["version"]
        assert library["licence"]
        assert any(name.endswith(".LICENSE") for name in library["files"])
