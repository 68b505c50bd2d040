"""The supervisor writes its own log lines: they must be those of the other processes. And it must stay small."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
import structlog

from openai_dify_proxy.cli.supervision.lines import Lines
from openai_dify_proxy.telemetry import LogFormat, configure_logging

FIELDS: list[dict[str, str | int]] = [{}, {"pid": 12, "reason": "SIGKILL"}, {"reason": "it said \"no\" = 'yes'"}]

LEVELS = ("debug", "info", "warning", "error")

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z|\d\d:\d\d:\d\d")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of_the_log(level: str, log_format: LogFormat) -> None:
    configure_logging(level, log_format)
    log = structlog.get_logger()
    for name in LEVELS:
        for fields in FIELDS:
            getattr(log, name)("worker_died", **fields)


def lines_of_the_supervisor(level: str, log_format: LogFormat) -> None:
    lines = Lines(level, log_format)
    for name in LEVELS:
        for fields in FIELDS:
            getattr(lines, name)("worker_died", **fields)


@pytest.mark.parametrize("level", ["debug", "warning"])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_lines_are_those_of_the_log(
    monkeypatch: pytest.MonkeyPatch, log_format: LogFormat, stream: type[io.StringIO], level: str
) -> None:
    written = []
    for write in (lines_of_the_log, lines_of_the_supervisor):
        monkeypatch.setattr(sys, "stderr", stream())
        write(level, log_format)
        assert isinstance(sys.stderr, io.StringIO)
        text = sys.stderr.getvalue()
        written.append(TIME.sub("TIME", text))
        assert len(TIME.findall(text)) == len(text.splitlines()) == len(FIELDS) * (4 if level == "debug" else 2)
    assert written[0] == written[1]


def test_the_supervisor_imports_no_other_packages() -> None:
    program = "import openai_dify_proxy.cli.supervision.handover, sys; print(*sys.modules)"
    environment = {"PATH": ""}  # without measuring coverage
    loaded = subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, check=True)
    packages = {name.partition(".")[0] for name in loaded.stdout.decode().split()}
    foreign = packages - sys.stdlib_module_names - {"openai_dify_proxy"}
    assert {name for name in foreign if not name.startswith(("__editable__", "_virtualenv", "_"))} == set()
    assert not packages & {"asyncio", "logging", "dataclasses", "ssl"}
