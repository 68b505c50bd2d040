"""The log lines of the supervisor, as ``telemetry.logs`` writes those of all other processes.

Their fields are numbers and texts of this program, so nothing needs to be masked.
"""

from __future__ import annotations

import json
import sys
import time

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

_COLORS = {"debug": "\x1b[32m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_DIM, _BRIGHT, _CYAN, _MAGENTA, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[36m", "\x1b[35m", "\x1b[0m"


class Lines:
    """Writes lines of at least ``level`` to standard error, in ``log_format``; colored on a terminal."""

    def __init__(self, level: str, log_format: str) -> None:
        self._threshold = LEVELS[level]
        self._json = log_format == "json"

    def debug(self, event: str, **fields: str | int) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: str | int) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: str | int) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: str | int) -> None:
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, str | int]) -> None:
        """Write a line, unless its level is too low. A line that cannot be written is lost."""
        if LEVELS[level] < self._threshold:
            return
        try:
            sys.stderr.write(self._line(level, event, fields) + "\n")
            sys.stderr.flush()
        except OSError:
            pass  # the disk is full, or the reader is gone

    def _line(self, level: str, event: str, fields: dict[str, str | int]) -> str:
        now = time.time()
        if self._json:
            return json.dumps({**fields, "event": event, "level": level, "timestamp": _timestamp(now)})
        if sys.stderr.isatty():
            return _colored(now, level, event, fields)
        parts = [_timestamp(now), f"{level:<5}", event]
        return " ".join([*parts, *(f"{name}={_shown(value)}" for name, value in fields.items())])


def _colored(now: float, level: str, event: str, fields: dict[str, str | int]) -> str:
    parts = [
        f"{_DIM}{time.strftime('%H:%M:%S', time.localtime(now))}{_RESET}",
        f"{_COLORS[level]}{level:<5}{_RESET}",
        f"{_BRIGHT}{event}{_RESET}",
    ]
    for name, value in fields.items():
        parts.append(f"{_CYAN}{name}{_RESET}={_MAGENTA}{_shown(value)}{_RESET}")
    return " ".join(parts)


def _timestamp(now: float) -> str:
    """Return a time as ``2026-01-31T12:00:00.123456Z``."""
    seconds, microseconds = divmod(int(now * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06}Z"


def _shown(value: str | int) -> str:
    text = str(value)
    return repr(text) if any(mark in text for mark in " ='\"") else text
