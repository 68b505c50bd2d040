"""A pytest plugin that fails a complete run of the suite if no test reads a recording.

An audit hook notes the files that tests open, so there is no list to maintain. Workers of pytest-xdist report theirs
to the process that started them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

RECORDINGS = Path(__file__).parent / "recordings"


class Orphans:
    """A pytest plugin for one session."""

    def __init__(self) -> None:
        self._root = f"{RECORDINGS}{os.sep}"
        self._read: set[str] = set()
        self._running = False
        self._orphans: list[str] = []
        sys.addaudithook(self._on_audit)

    def _on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and self._running and isinstance(path := arguments[0], str) and path.startswith(self._root):
            self._read.add(path.removeprefix(self._root))

    def pytest_runtest_logstart(self) -> None:
        self._running = True

    def pytest_runtest_logfinish(self) -> None:
        self._running = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._read.update(getattr(node, "workeroutput", {}).get("recordings_read", []))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["recordings_read"] = sorted(self._read)
        elif session.exitstatus == pytest.ExitCode.OK and _is_whole(session.config):
            files = (str(path.relative_to(RECORDINGS)) for path in RECORDINGS.rglob("*.response.*"))
            self._orphans = sorted(
                {_name(file) for file in files} - {_name(file) for file in self._read if ".response." in file}
            )
            if self._orphans:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._orphans:
            terminalreporter.section("recordings that no test read", red=True)
            for path in self._orphans:
                terminalreporter.line(path)


def _name(file: str) -> str:
    """Return the name of a file's recording, which the files of its request, response and timings share."""
    folder, _, file = file.rpartition(os.sep)
    return f"{folder}/{file.partition('.')[0]}"


def _is_whole(config: pytest.Config) -> bool:
    chosen = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return not chosen and not any(config.getoption(name) for name in ("keyword", "markexpr", "deselect", "lf"))
