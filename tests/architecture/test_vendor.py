"""The libraries of the console are the files that their packages published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

VENDOR = Path(__file__).parents[2] / "src/openai_dify_proxy/console/static/vendor"
LIBRARIES = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
FILES = {name: file["sha256"] for library in LIBRARIES for name, file in library["files"].items()}


@pytest.mark.parametrize("name", FILES)
def test_a_library_is_unchanged(name: str) -> None:
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == FILES[name], "run scripts/vendor"


def test_every_library_is_listed_with_version_and_licence() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {*FILES, "vendor.json"}
    for library in LIBRARIES:
        assert library["version"]
        assert library["licence"]
        assert any(name.endswith(".LICENSE") for name in library["files"])
