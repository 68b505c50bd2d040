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

_DELETE = b"\x7f"
"""The only ASCII character that JSON does not escape, although it may control a terminal."""


class QuickLines:
    """A structlog processor; ``usual`` are those of other lines. ``shown`` returns the console's form of a text."""

    def __init__(
        self, usual: Sequence[Processor], log_format: Literal["console", "json"], *, shown: Callable[[object], str]
    ) -> None:
        self._usual = usual
        self._shown = lru_cache(maxsize=1024)(shown)
        self.render = self._json if log_format == "json" else self._console
        """Returns the line of an event with its level; None if only the usual processors can render it."""

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        if event["event"] in REQUEST_LINES and (line := self.render(method, event)) is not None:
            return line
        result: EventDict | str = event
        for processor in self._usual:
            result = processor(logger, method, result)  # type: ignore[arg-type, assignment]  # the last returns a text
        assert isinstance(result, str)
        return result

    def _json(self, level: str, event: EventDict) -> str | None:
        line = _with_request_id(event)
        line["level"] = level
        line["timestamp"] = timestamp(time())
        try:
            data = msgspec.json.encode(line)
        except UnicodeEncodeError:  # a lone surrogate
            return None
        return data.decode() if data.isascii() and _DELETE not in data else None

    def _console(self, level: str, event: EventDict) -> str:
        shown = self._shown
        parts = [timestamp(time()), f"{level:{LEVEL_WIDTH}}", event["event"]]
        request_id = None
        for name, value in _with_request_id(event).items():
            if type(value) is int and name not in BARE:
                parts.append(f"{name}={value}")
            elif name == "request_id":
                request_id = value
            elif name in BARE:
                parts.append(shown(value))
            elif name != "event":
                parts.append(f"{name}={shown(value)}")
        if request_id is not None:
            plain = isinstance(request_id, str) and request_id.isidentifier() and request_id.isascii()
            parts.append(request_id if plain else shown(request_id))
        return " ".join(parts)


def _with_request_id(event: EventDict) -> EventDict:
    request_id = REQUEST_ID.get()
    return event if "request_id" in event or not request_id else {**event, "request_id": request_id}


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(now: float) -> str:
    """Return a time in the form ``2026-01-31T23:59:59.000001Z``; ``now`` is in seconds since the epoch."""
    second = int(now)
    return f"{_second(second)}.{int((now - second) * 1e6):06d}Z"
