"""The settings of the supervisor: those that it needs itself, and all of them as bytes for its workers.

A process of their own loads them: importing the model of the settings would take more memory than the supervisor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import BinaryIO, Literal, NamedTuple

LOADING_SECONDS = 60.0
"""How long loading may take. It reads files, and from the state whether there are client keys."""


class LoadedSettings(NamedTuple):
    """``encoded`` are all settings, keys included, as ``decode_settings`` reads them. Durations are in seconds."""

    workers: int
    shutdown_delay: float
    shutdown_grace: float
    log_level: str
    log_format: Literal["console", "json"]
    encoded: bytes

    def write(self, file: BinaryIO) -> None:
        """Write them to ``file``, for ``read_loaded``."""
        *head, encoded = self
        file.write(json.dumps(head).encode() + b"\n" + encoded)
        file.flush()


class CannotLoad(Exception):
    """The settings are invalid or could not be loaded. ``problems`` are sentences; ``logged`` is whether the log has
    them."""

    def __init__(self, problems: list[str], *, logged: bool) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.logged = logged


def write_problems(problems: list[str], file: BinaryIO) -> None:
    """Write why there are no settings to ``file``, for ``read_loaded``."""
    file.write(json.dumps({"problems": problems}).encode() + b"\n")
    file.flush()


def read_loaded(data: bytes) -> LoadedSettings:
    """Read the settings that ``LoadedSettings.write`` wrote. Raises CannotLoad for the problems of
    ``write_problems``."""
    head, _, encoded = data.partition(b"\n")
    values = json.loads(head)
    if isinstance(values, dict):
        raise CannotLoad(values["problems"], logged=True)
    workers, delay, grace, level, log_format = values
    return LoadedSettings(workers, delay, grace, level, log_format, encoded)


class Loading:
    """A process that loads the settings again, from ``sources``. It logs with the level and format of ``settings``."""

    def __init__(self, sources: str, settings: LoadedSettings) -> None:
        arguments = [sources, settings.log_level, settings.log_format]
        command = [sys.executable, "-P", "-m", "openai_dify_proxy.cli.settings_process", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603 - this program
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._received = b""
        self._deadline = time.monotonic() + LOADING_SECONDS

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``receive`` has something to read."""
        return self._output.fileno()

    def receive(self) -> bool:
        """Read what has arrived. Return whether the process has ended, and ``result`` can be called."""
        part = os.read(self._output.fileno(), 1 << 20)
        self._received += part
        return not part

    def check(self, now: float) -> None:
        """End the process if it takes too long."""
        if now >= self._deadline:
            self._process.kill()

    def result(self) -> LoadedSettings:
        """Return the settings, once the process has ended. Raises CannotLoad."""
        code = self.close()
        if not self._received or code:
            raise CannotLoad([f"The settings could not be loaded: the process ended with code {code}."], logged=False)
        return read_loaded(self._received)

    def close(self) -> int:
        """End the process, and return its exit code."""
        self._output.close()
        if not self._received:
            self._process.kill()
        return self._process.wait()
