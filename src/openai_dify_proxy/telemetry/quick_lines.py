"""Renders the lines of requests in one step: they are most of a log, and the usual processors take ten times as long.

The result is the same as that of the usual processors, which render all other lines, and these on a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from time import time
from typing import Literal

import msgspec
from structlog.typing import EventDict, Processor, WrappedLogger

REQUEST_LINES = frozenset({"request_finished", "request_rejected", "background_finished", "inner_turn_finished"})
"""The events whose values are texts, numbers and None, without keys, and short."""

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the current task or callback serves."""

LEVEL_WIDTH = len("error")

BARE = ("method", "path", "status", "outcome")
"""Fields that the console shows without their names."""

_PLACED = frozenset({"event", "request_id"})
"""Fields that the console shows without their names, at the beginning and the end."""

_DELETE = b"\x7f"
"""The only ASCII character that JSON does not escape, although it may control a terminal."""


class QuickLines:
    """A structlog processor; ``usual`` are those of other lines. ``shown`` returns the console's form of a text."""

    def __init__(
        self, usual: Sequence[Processor], log_format: Literal["console", "json"], *, shown: Callable[[object], str]
    ) -> None:
        self._usual = usual
        self._shown = lru_cache(maxsize=1024)(shown)
        self._render = self._json if log_format == "json" else self._console
        """Returns None if only the usual processors can render a line."""

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        return self.line(method, event, time()) if event["event"] in REQUEST_LINES else self._usual_line(method, event)

    def line(self, level: str, event: EventDict, at: float) -> str:
        """Return the line of a request's event that happened at ``at``, in seconds since the epoch."""
        line = self._render(level, event, at)
        return self._usual_line(level, {**event, "timestamp": _timestamp(at)}) if line is None else line

    def _usual_line(self, level: str, event: EventDict) -> str:
        result: EventDict | str = event
        for processor in self._usual:
            result = processor(None, level, result)  # type: ignore[arg-type, assignment]  # the last returns a text
        assert isinstance(result, str)
        return result

    def _json(self, level: str, event: EventDict, at: float) -> str | None:
        if "request_id" not in event and (request_id := REQUEST_ID.get()):
            event = {**event, "request_id": request_id}
        try:
            data = msgspec.json.encode({**event, "level": level, "timestamp": _timestamp(at)})
        except UnicodeEncodeError:  # a lone surrogate
            return None
        return data.decode() if data.isascii() and _DELETE not in data else None

    def _console(self, level: str, event: EventDict, at: float) -> str:
        shown = self._shown
        request_id: str = event.get("request_id") or REQUEST_ID.get()
        values = [value if type(value) is int else shown(value) for name, value in event.items() if name not in _PLACED]
        line = f"{_timestamp(at)} {level:{LEVEL_WIDTH}} {event['event']}{_form(tuple(event)) % tuple(values)}"
        if request_id:
            line += f" {request_id if request_id.isidentifier() else shown(request_id)}"
        return line


@lru_cache(maxsize=64)
def _form(names: tuple[str, ...]) -> str:
    """Return the console's format of the values of the fields with these names, except ``_PLACED`` ones."""
    return "".join(" %s" if name in BARE else f" {name}=%s" for name in names if name not in _PLACED)


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _timestamp(at: float) -> str:
    """Return a time in the form ``2026-01-31T23:59:59.000001Z``."""
    second = int(at)
    return f"{_second(second)}.{int((at - second) * 1e6):06d}Z"
