"""Logs: one line per event, for people or for machines, with the request id in each line of a request.

The logs of uvicorn, asyncio and other libraries take the same path. Keys, prompts and answers are never logged;
``mask_keys`` is a second line of defence. Clients choose paths, header values and model names, so no line holds a
character that could forge another line or control a terminal, and long values are cut.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import lru_cache
from typing import Literal, TextIO, cast

import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from openai_dify_proxy.errors import mask_keys
from openai_dify_proxy.telemetry.quick_lines import BARE, LEVEL_WIDTH, REQUEST_ID, REQUEST_LINES, QuickLines

LogFormat = Literal["console", "json"]

_COLUMNS = 110
"""The longest line of a request on a terminal."""

_REASON_FRAME = len(" reason='…'")
_ALWAYS = frozenset({"timestamp", "level", "event", *BARE, "request_id"})
_LEAST_REASON = 30
"""Columns that the reason of an error has at least; with fewer it is left out."""

_MAX_VALUE = 500
"""Characters of a value."""

_MAX_TEXT = 2000
"""Characters of an event, which may be the message of a library."""

_MAX_TRACEBACK = 20_000
"""Characters of a traceback; a longer one loses its start, since its end names the error."""

_ATOMIC_BYTES = 4096
"""The largest write to a pipe of several workers that is never mixed with others (``PIPE_BUF`` of Linux)."""

_LINE_SECONDS = 0.02
"""How long the line of a request waits for others."""

_MAX_WAITING = 64
"""Lines of requests that are written at once."""

_ELLIPSIS = "…"

log = structlog.get_logger(__name__)

_NON_ASCII = re.compile(r"[^ -~]")
_QUOTED = re.compile("[ ='\"]")
"""A character for which a value has quotes on the console."""


def configure_logging(level: str = "info", log_format: LogFormat = "console") -> None:
    """Write all logs of at least ``level`` to standard error; replaces an earlier configuration."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    on_terminal = log_format == "console" and sys.stderr.isatty()
    shared: list[Processor] = [
        _add_request_id,
        structlog.processors.add_log_level,
        # Terminals are narrow, and a person who watches one knows the date.
        structlog.processors.MaybeTimeStamper(fmt="%H:%M:%S" if on_terminal else "iso", utc=not on_terminal),
    ]
    stream = _LineStream(sys.stderr)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    # The command line and the app already report at info level that the server starts and stops.
    logging.getLogger("uvicorn").setLevel(threshold if threshold <= logging.DEBUG else max(threshold, logging.WARNING))
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    usual = [*shared, *_rendering(log_format)]
    quick = None if on_terminal else QuickLines(usual, log_format, shown=_shown)
    processors: list[Processor] = usual if quick is None else [quick]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, stream)),
        cache_logger_on_first_use=False,
    )
    global _request_lines  # noqa: PLW0603 - the configuration of structlog is global, too
    _request_lines = None if quick is None else RequestLines(processors, quick, stream)


class RequestLines:
    """Writes the lines of requests without structlog's loggers, which take longer than the line.

    ``processors`` are those of all lines: ``quick``, unless others have replaced it.
    """

    def __init__(self, processors: list[Processor], quick: QuickLines, stream: _LineStream) -> None:
        self.processors = processors
        self._quick = quick
        self._stream = stream

    def write(self, level: str, at: float, describe: Callable[[], EventDict]) -> bool:
        """Write the line of an event that happened at ``at``, in seconds since the epoch, within ``_LINE_SECONDS``.

        ``describe`` returns the event, whose level is enabled and which has a ``request_id``. It is called when the
        line is written. Return False if only structlog can write it. Must be called in an event loop.
        """
        if self._quick not in self.processors:
            return False
        self._stream.write_later(lambda: self._quick.line(level, describe(), at))
        return True


_request_lines: RequestLines | None = None


def request_lines() -> RequestLines | None:
    """Return the writer for the lines of requests; None if only structlog can write them.

    Those are the lines on a terminal, and all lines in another configuration than ``configure_logging``'s.
    """
    lines = _request_lines
    return lines if lines is not None and lines.processors is structlog.get_config()["processors"] else None


class _LineStream(io.TextIOBase):
    """Writes lines to ``stream``, which is line-buffered, in their order.

    Lines of requests wait for each other, and are made together: the same code takes less time when it runs many times
    in a row, and a system call for several lines costs as much as for one. A write has as many as are certain not to be
    mixed with those of other workers. A line that cannot be written, since a disk is full or a reader is gone, is lost:
    no request fails because of it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: list[Callable[[], str]] = []
        self._flushing: asyncio.AbstractEventLoop | None = None

    def write_later(self, render: Callable[[], str]) -> None:
        """Write the line that ``render`` returns within ``_LINE_SECONDS``, or before the next call of ``write``."""
        if not self._waiting or self._flushing is None or self._flushing.is_closed():
            self._flushing = asyncio.get_running_loop()
            self._flushing.call_later(_LINE_SECONDS, self.flush)
        self._waiting.append(render)
        if len(self._waiting) >= _MAX_WAITING:
            self.flush()

    def write(self, text: str) -> int:
        self.flush()
        self._write(text)
        return len(text)

    def flush(self) -> None:
        """Write the lines that wait. ``logging`` calls it when the process exits."""
        waiting, self._waiting = self._waiting, []
        together, size = "", 0
        for render in waiting:
            try:
                line = f"{render()}\n"
            except Exception:  # noqa: BLE001 - a bug must not take the other lines with it
                self._write(together)
                together, size = "", 0
                Context().run(log.exception, "record_lost")  # no request's id: the current one is any
                continue
            size += len(line)  # nearly all characters are ASCII
            if size > _ATOMIC_BYTES and together:
                self._write(together)
                together, size = "", len(line)
            together += line
        self._write(together)

    def _write(self, text: str) -> None:
        try:
            if text:
                self._stream.write(text)
        except OSError:
            pass  # see above


bind_request = REQUEST_ID.set
"""Adds a request id to all later lines of the current task or callback, and of tasks and timers that it starts.

Returns what ``unbind_request`` needs.
"""

unbind_request = REQUEST_ID.reset
"""Undoes a ``bind_request`` in the same callback."""


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    request_id = REQUEST_ID.get()
    if request_id:
        event.setdefault("request_id", request_id)
    return event


def escape_unprintable(text: str) -> str:
    """Return ``text`` with escapes such as ``\\x1b``, ``\\u2028`` or ``\\U000e0001`` for unprintable characters.

    Those are control, format (bidirectional marks too), separator, surrogate and unassigned characters.
    """
    return text if text.isprintable() else _NON_ASCII.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def _json_escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _mask(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Mask the keys in all values, cut long values, and escape the names of fields."""
    return {
        _name(name): mask_keys(_last(value)) if name == "exception" else _masked(value, _limit(name))
        for name, value in event.items()
    }


def _name(name: object) -> str:
    return escape_unprintable(_cut(str(name), _MAX_VALUE))


def _limit(name: object) -> int:
    return _MAX_TEXT if name == "event" else _MAX_VALUE


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + _ELLIPSIS


def _last(value: object) -> str:
    """Return the end of a traceback."""
    text = str(value)
    return text if len(text) <= _MAX_TRACEBACK else _ELLIPSIS + text[-_MAX_TRACEBACK:]


@lru_cache(maxsize=1024)
def clean(text: str) -> str:
    """Return a text from outside with masked keys, and cut."""
    return mask_keys(_cut(text, _MAX_VALUE))


def _masked(value: object, limit: int) -> object:
    match value:
        case str():
            return mask_keys(_cut(value, limit))
        case Mapping():
            return {_name(name): _masked(part, limit) for name, part in value.items()}
        case list() | tuple():
            return [_masked(part, limit) for part in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return mask_keys(_cut(str(value), limit))


def _rendering(log_format: LogFormat) -> list[Processor]:
    """Return the last processors. Tracebacks are formatted before masking: an exception's message may hold a key."""
    shared: list[Processor] = [structlog.processors.format_exc_info, _mask]
    if log_format == "json":
        return [*shared, _render_json]
    on_terminal = sys.stderr.isatty()
    fitting: list[Processor] = [_fit_columns] if on_terminal else []
    return [*shared, _escape_texts, _request_id_last, *fitting, _console(colors=on_terminal)]


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Return a line of JSON. Unprintable characters have JSON escapes, so readers get the original text."""
    line = json.dumps(event, ensure_ascii=False)
    return line if line.isprintable() else _NON_ASCII.sub(_json_escaped, line)


def _escape_texts(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape the texts that the console shows as they are; ``_shown`` quotes the values of fields.

    Line breaks of a traceback stay.
    """
    event["event"] = escape_unprintable(str(event["event"]))
    if "exception" in event:
        event["exception"] = "\n".join(map(escape_unprintable, event["exception"].split("\n")))
    return event


def _request_id_last(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if "request_id" in event:
        event["request_id"] = event.pop("request_id")
    return event


def _fit_columns(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Leave out the last fields of a request's line, and cut its reason, so that it fits into ``_COLUMNS``.

    The line has its most important fields first. Logs that are not on a terminal have all of them. The usual event
    needs no name: its line begins with the method.
    """
    if event["event"] not in REQUEST_LINES:
        return event
    if event["event"] == "request_finished":
        del event["event"]
    left = _COLUMNS + 1 - sum(_columns(name, event[name]) for name in _ALWAYS if name in event)
    fitted: EventDict = {}
    for name, value in event.items():
        if name in _ALWAYS:
            fitted[name] = value
            continue
        if name == "reason" and _columns(name, value) > left > _LEAST_REASON:
            value = f"{value[: left - _REASON_FRAME]}{_ELLIPSIS}"
        if (columns := _columns(name, value)) <= left:
            fitted[name] = value
            left -= columns
    return fitted


def _columns(name: str, value: object) -> int:
    """Return the columns of a field on the console, with the space before it."""
    return (
        1 + max(len(_shown(value)), LEVEL_WIDTH if name == "level" else 0) + (0 if name in _ALWAYS else len(name) + 1)
    )


def _console(*, colors: bool) -> ConsoleRenderer:
    """Return a renderer whose usual lines fit into 110 columns: no padding, and no names for well-known fields."""
    styles = ConsoleRenderer.get_default_column_styles(colors)
    level_styles = ConsoleRenderer.get_default_level_styles(colors)

    def bare(style: str, prefix: str = "", postfix: str = "") -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(None, style, styles.reset, _shown, prefix=prefix, postfix=postfix)

    named = KeyValueColumnFormatter(styles.kv_key, styles.kv_value, styles.reset, _shown)
    request_id = bare(styles.timestamp)

    def level(key: str, value: object) -> str:
        return f"{level_styles.get(str(value), '')}{value!s:{LEVEL_WIDTH}}{styles.reset}"

    def field(key: str, value: object) -> str:
        return request_id(key, value) if key == "request_id" else named(key, value)

    return ConsoleRenderer(
        columns=[
            Column("", field),
            Column("timestamp", bare(styles.timestamp)),
            Column("level", level),
            Column("event", KeyValueColumnFormatter(None, styles.bright, styles.reset, str)),
            Column("logger", bare(styles.logger_name, "[", "]")),
            *(Column(name, bare(styles.kv_value)) for name in BARE),
        ],
        sort_keys=False,
    )


def _shown(value: object) -> str:
    """Return the value as one word; in quotes and escaped if it holds spaces, quotes or control characters."""
    text = str(value)
    plain = text.isprintable() and not _QUOTED.search(text)
    return text if plain or not isinstance(value, str) else repr(text)
