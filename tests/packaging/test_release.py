"""``scripts/check-release``, which a release runs before it builds anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.packaging.commands import ROOT


def check_release(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = checkout / "scripts/check-release"
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with only the files that the script reads."""
    script = tmp_path / "scripts/check-release"
    script.parent.mkdir()
    script.write_bytes((ROOT / "scripts/check-release").read_bytes())
    script.chmod(0o755)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nversion = "1.2.0" # of both\n[project.urls]\nRepository = "https://github.com/someone/proxy"\n'
    )
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 1.2.0 – 2026-02-03\n\n### Added\n\n- Two\n\n## 1.1.0 – 2026-01-01\n\n- One\n"
    )
    return tmp_path


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_it_prints_the_section_of_the_version(checkout: Path) -> None:
    checked = check_release(checkout, "v1.2.0")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.strip() == "### Added\n\n- Two"


@pytest.mark.parametrize("tag", ["v1.1.0", "1.2.0", "v1.2.0rc1", "v1.2.0\nv1.1.0"])
def test_another_tag_is_an_error(checkout: Path, tag: str) -> None:
    checked = check_release(checkout, tag)
    assert (checked.returncode, checked.stdout) == (1, "")
    assert checked.stderr == f"Error: The tag is '{tag}', but the version in pyproject.toml is '1.2.0'.\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("CHANGELOG.md", "2026-02-03", "Unreleased", "no line '## 1.2.0 – YYYY-MM-DD'"),
        ("CHANGELOG.md", "### Added\n\n- Two\n", "", "The section '## 1.2.0 – 2026-02-03' of CHANGELOG.md is empty."),
        ("pyproject.toml", "someone", "OWNER", "Replace OWNER"),
    ],
)
def test_an_unfinished_release_is_an_error(checkout: Path, file: str, old: str, new: str, problem: str) -> None:
    replace(checkout / file, old, new)
    checked = check_release(checkout, "v1.2.0")
    assert (checked.returncode, checked.stdout) == (1, "")
    assert problem in checked.stderr


def test_the_version_of_this_checkout_is_found() -> None:
    assert "The tag is 'v0', but the version in pyproject.toml is '" in check_release(ROOT, "v0").stderr
    assert "''" not in check_release(ROOT, "v0").stderr
