"""A command in its own terminal, where Ctrl-C reaches all its processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.cli.program import PROGRAM, Program
from tests.limits import PATIENCE

_PTY = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(["/bin/sh", "-c", 'stty cols 80; exec "$@"', "sh", *sys.argv[1:]])))
"""


class Terminal:
    """A terminal of 80 columns and its command."""

    def __init__(self, process: subprocess.Popen[bytes], keys: IO[bytes], screen: IO[bytes]) -> None:
        self._process = process
        self._keys = keys
        self._screen = screen
        self.shown = ""

    def until(self, text: str) -> str:
        """Read lines until one contains ``text``, and return that line."""
        for raw in self._screen:
            line = raw.decode()
            self.shown += line
            if text in line:
                return line.rstrip()
        raise AssertionError(f"it ended, and showed {self.shown}")

    def press_ctrl_c(self) -> None:
        self.type("\x03")

    def type(self, text: str) -> None:
        self._keys.write(text.encode())
        self._keys.flush()

    def wait(self) -> int:
        """Read to the end, and return the exit code."""
        self.shown += self._screen.read().decode()
        return self._process.wait(PATIENCE)


@contextmanager
def terminal(
    program: Program, *arguments: str, command: Sequence[str | Path] = (PROGRAM,), **env: str
) -> Iterator[Terminal]:
    with subprocess.Popen(
        [sys.executable, "-c", _PTY, *command, *arguments],
        cwd=program.directory,
        env=program.environment({"TERM": "xterm", **env}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Terminal(process, process.stdin, process.stdout)
        finally:
            process.kill()
