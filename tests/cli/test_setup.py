"""``scripts/setup`` with a uv that only records its calls: which packages are installed, when, and repairs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "scripts/setup"

UV = """#!/bin/sh
[ "$1" = --version ] && echo "uv 0" && exit
shift 4 # sync --frozen --python …
echo "${UV_SYSTEM_CERTS:+with system certificates: }$*" >>calls
mkdir -p .venv/bin && touch .venv/bin/python && chmod +x .venv/bin/python
[ ! -e offline ] && { [ ! -e intercepted ] || [ -n "$UV_SYSTEM_CERTS" ]; }
"""
"""Fails where there is a file `offline`, and without the system's certificates where there is one `intercepted`."""


class Checkout:
    """A checkout with only the files that the script reads."""

    def __init__(self, root: Path, programs: Path) -> None:
        self.root = root
        self._programs = programs
        for name in ("pyproject.toml", "demo/pyproject.toml", "uv.lock"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        (root / "scripts").mkdir()
        shutil.copy(SETUP, root / "scripts")

    def setup(self, *arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "scripts/setup", *arguments],
            env={"PATH": f"{self._programs}:/usr/bin:/bin", "HOME": str(self.root)},
            user=user,
            capture_output=True,
            text=True,
            check=False,
        )

    def installed(self) -> list[str]:
        """Return the arguments of each call of uv since the last time."""
        calls = self.root / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return lines

    def move(self, root: Path) -> None:
        self.root = self.root.rename(root)


@pytest.fixture
def programs() -> Iterator[Path]:
    """Python and uv in a directory that every user can read."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        folder.chmod(0o755)
        (folder / "python3").symlink_to(sys.executable)
        (folder / "uv").write_text(UV)
        (folder / "uv").chmod(0o755)
        yield folder


@pytest.fixture
def checkout(tmp_path: Path, programs: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", programs)


def test_it_installs_once(checkout: Checkout) -> None:
    assert checkout.setup().returncode == 0
    assert checkout.installed() == ["--quiet"]
    again = checkout.setup()
    assert (again.returncode, again.stderr, checkout.installed()) == (0, "", [])
    assert checkout.setup("--no-dev").returncode == 0
    assert checkout.installed() == []


def test_parts_installed_before_stay(checkout: Checkout) -> None:
    checkout.setup("--no-dev", "--extra", "demo")
    assert checkout.installed() == ["--quiet --no-dev --inexact --extra demo"]
    checkout.setup("--extra", "redis", "--no-dev", "--extra", "s3")
    assert checkout.installed() == ["--quiet --no-dev --inexact --extra demo --extra redis --extra s3"]
    checkout.setup("--no-dev", "--extra", "demo")
    assert checkout.installed() == []
    checkout.setup()
    assert checkout.installed() == ["--quiet --extra demo --extra redis --extra s3"]


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml", "demo/pyproject.toml"])
def test_a_new_lock_is_installed_with_all_parts(checkout: Checkout, name: str) -> None:
    checkout.setup("--no-dev", "--extra", "redis")
    (checkout.root / name).write_text("new")
    checkout.installed()
    checkout.setup("--no-dev")
    assert checkout.installed() == ["--quiet --no-dev --inexact --extra redis"]


def test_a_moved_checkout_gets_a_new_environment_with_all_parts(checkout: Checkout, tmp_path: Path) -> None:
    checkout.setup("--no-dev", "--extra", "redis")
    checkout.installed()
    stale = checkout.root / ".venv/bin/mypy"
    stale.touch()
    checkout.move(tmp_path / "moved")
    ended = checkout.setup("--no-dev", "--extra", "demo")
    assert f"which was created in {tmp_path / 'checkout'} " in ended.stderr
    assert checkout.installed() == ["--quiet --no-dev --inexact --extra demo --extra redis"]
    assert not (checkout.root / ".venv/bin/mypy").exists()
    assert checkout.setup("--no-dev").stderr == ""


def test_a_checkout_reached_by_a_link_is_not_a_moved_one(checkout: Checkout, tmp_path: Path) -> None:
    checkout.setup()
    checkout.installed()
    (tmp_path / "link").symlink_to(checkout.root)
    checkout.root = tmp_path / "link"
    assert (checkout.setup().stderr, checkout.installed()) == ("", [])


def test_the_certificates_of_the_system_are_the_second_try(checkout: Checkout) -> None:
    (checkout.root / "intercepted").touch()
    assert checkout.setup().returncode == 0
    assert checkout.installed() == ["--quiet", "with system certificates: --quiet"]
    assert checkout.setup().stderr == ""


def test_what_failed_is_tried_again_the_next_time(checkout: Checkout) -> None:
    (checkout.root / "offline").touch()
    assert checkout.setup("--extra", "redis").returncode != 0
    (checkout.root / "offline").unlink()
    checkout.installed()
    assert checkout.setup().returncode == 0
    assert checkout.installed() == ["--quiet"]


@pytest.mark.parametrize("arguments", [("redis",), ("--dev",), ("--extra",)])
def test_wrong_arguments(checkout: Checkout, arguments: tuple[str, ...]) -> None:
    ended = checkout.setup(*arguments)
    assert (ended.returncode, ended.stderr) == (2, "Usage: scripts/setup [--no-dev] [--extra NAME] ...\n")


def test_a_read_only_checkout_is_a_message(programs: Path) -> None:
    checkout = Checkout(programs / "checkout", programs)
    checkout.root.chmod(0o555)
    # No directory is read-only for root.
    ended = checkout.setup(user=65_534 if os.geteuid() == 0 else None)
    checkout.root.chmod(0o755)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Cannot set up .venv: {checkout.root} is not writable by the user ")
    advice = "Run this as the owner of the checkout, or copy the checkout to a writable directory.\n"
    assert ended.stderr.endswith(advice)


def test_an_extra_alone_brings_no_tools_for_development_to_a_server(checkout: Checkout) -> None:
    assert checkout.setup("--no-dev").returncode == 0
    assert checkout.setup("--extra", "redis").returncode == 0
    assert checkout.installed()[-1] == "--quiet --no-dev --inexact --extra redis"
