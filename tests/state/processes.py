"""Separate processes that use a file of the state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Process:
    """A separate ``sqlite_process``; the constructor returns when it prints ``says``."""

    def __init__(self, path: Path, command: str, says: str = "ready") -> None:
        arguments = [sys.executable, "-m", "tests.state.sqlite_process", str(path), command]
        self._process = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect(says)

    def expect(self, line: str) -> None:
        """Wait for a line of output; those of the log may come before it."""
        assert self._process.stdout is not None
        while (found := self._process.stdout.readline()) != f"{line}\n":
            assert "[warning" in found

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> str:
        output, _ = self._process.communicate()
        assert self._process.returncode == 0
        return output

    def kill(self) -> None:
        """End the process without a chance to do anything more."""
        self._process.kill()
        self._process.communicate()
