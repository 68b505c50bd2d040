"""The console script as people run it: a process of its own, in an empty directory, with a told environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("openai-dify-proxy")


class Program:
    """Runs the console script, or another command, in ``directory``, which is its HOME too."""

    def __init__(self, directory: Path, command: Sequence[str | Path] = (PROGRAM,)) -> None:
        self.directory = directory
        self._command = command

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            cwd=self.directory,
            env=self._environment(env),
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def start(self, *arguments: str, **env: str) -> Iterator[Running]:
        """The program while it serves; it is killed at the end if it still runs."""
        log = self.directory / "stderr"
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                [*self._command, *arguments],
                cwd=self.directory,
                env=self._environment(env),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            ) as process,
        ):
            try:
                yield Running(process, log)
            finally:
                process.kill()

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COV")}
        return {**kept, "HOME": str(self.directory), "PYTHONWARNINGS": "error", **env}


class Running:
    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        self.said: list[str] = []

    @property
    def logged(self) -> str:
        return self._log.read_text()

    def until(self, beginning: str) -> str:
        """The next line it says that begins so, without white space around it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.strip().startswith(beginning):
                return line.strip()
        raise AssertionError(f"it ended and said {self.said}, {self.logged}")

    def url(self) -> str:
        """The base URL that its first line names."""
        return self.until("").split()[-1]

    def end(self, signal: int) -> int:
        """Send it a signal and return its exit code."""
        self.process.send_signal(signal)
        return self.process.wait(30)
