"""The console script as people run it: a separate process in an empty directory, with a given environment."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.limits import PATIENCE

PROGRAM = Path(sys.executable).with_name("openai-dify-proxy")


class Program:
    """Runs the console script, or another command, in ``directory``, which is its HOME too."""

    def __init__(self, directory: Path, command: Sequence[str | Path] = (PROGRAM,)) -> None:
        self.directory = directory
        self._command = command

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end. The console script runs in a fork of a process that has loaded it."""
        if self._command == (PROGRAM,):
            return _fork_server().run(self.directory, arguments, self.environment(env))
        return self.run_afresh(*arguments, **env)

    def run_afresh(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end in a fresh interpreter, which reads variables such as PYTHONIOENCODING."""
        return subprocess.run(
            [*self._command, *arguments],
            cwd=self.directory,
            env=self.environment(env),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
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
                env=self.environment(env),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            ) as process,
        ):
            try:
                yield Running(process, log)
            finally:
                process.kill()

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COV")}
        return {**kept, "HOME": str(self.directory), "PYTHONWARNINGS": "error", **env}


class _ForkServer:
    """``tests.cli.fork_server`` in a process; several threads may ask it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.fork_server"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONWARNINGS": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def run(
        self, directory: Path, arguments: Sequence[str], env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as told, self._lock:
            stdout, stderr = Path(told) / "stdout", Path(told) / "stderr"
            asked = {
                "directory": str(directory),
                "arguments": arguments,
                "env": env,
                "stdout": str(stdout),
                "stderr": str(stderr),
            }
            self._process.stdin.write(f"{json.dumps(asked)}\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, stdout.read_text(), stderr.read_text())

    def close(self) -> None:
        self._process.communicate()


@cache
def _fork_server() -> _ForkServer:
    server = _ForkServer()
    atexit.register(server.close)
    return server


class Running:
    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log
        self.said: list[str] = []

    @property
    def logged(self) -> str:
        return self._log.read_text()

    def until(self, beginning: str) -> str:
        """Return the next line of its output with this start, without white space around it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.strip().startswith(beginning):
                return line.strip()
        raise AssertionError(f"it ended and said {self.said}, {self.logged}")

    def url(self) -> str:
        """Return the base URL in its first line."""
        return self.until("").split()[-1]

    def end(self, signal: int) -> int:
        """Send it a signal and return its exit code."""
        self.process.send_signal(signal)
        return self.process.wait(PATIENCE)
