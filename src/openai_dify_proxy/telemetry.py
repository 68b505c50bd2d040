"""Logs: one line per event, for people or for machines, with the request id in each line of a request.

The logs of uvicorn, asyncio and other libraries take the same path. Keys, prompts and answers are never logged;
``mask_keys`` is a second line of defence.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Literal

import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from openai_dify_proxy.errors import mask_keys

LogFormat = Literal["console", "json"]

_LEVEL_WIDTH = len("error")
_BARE = ("method", "path", "status")
"""Fields that the console shows without their names."""


def configure_logging(level: str = "info", log_format: LogFormat = "console") -> None:
    """Write all logs of at least ``level`` to standard error; replaces an earlier configuration."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    on_terminal = log_format == "console" and sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        # Terminals are narrow, and a person who watches one knows the date.
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if on_terminal else "iso", utc=not on_terminal),
    ]
    handler = logging.StreamHandler(sys.stderr)
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
    structlog.configure(
        processors=[*shared, *_rendering(log_format)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def bind_request(request_id: str, **context: object) -> None:
    """Add ``request_id`` and ``context`` to all later lines of the current task and of tasks that it starts."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id, **context)


def _mask(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {name: _masked(value) for name, value in event.items()}


def _masked(value: object) -> object:
    match value:
        case str():
            return mask_keys(value)
        case Mapping():
            return {name: _masked(part) for name, part in value.items()}
        case list() | tuple():
            return [_masked(part) for part in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return mask_keys(str(value))


def _rendering(log_format: LogFormat) -> list[Processor]:
    """Return the last processors. Tracebacks are formatted before masking: an exception's message may hold a key."""
    if log_format == "json":
        return [structlog.processors.format_exc_info, _mask, structlog.processors.JSONRenderer(ensure_ascii=False)]
    return [structlog.processors.format_exc_info, _mask, _request_id_last, _console(colors=sys.stderr.isatty())]


def _request_id_last(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if "request_id" in event:
        event["request_id"] = event.pop("request_id")
    return event


def _console(*, colors: bool) -> ConsoleRenderer:
    """Return a renderer whose usual lines fit into 110 columns: no padding, and no names for well-known fields."""
    styles = ConsoleRenderer.get_default_column_styles(colors)
    level_styles = ConsoleRenderer.get_default_level_styles(colors)

    def bare(style: str, prefix: str = "", postfix: str = "") -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(None, style, styles.reset, _shown, prefix=prefix, postfix=postfix)

    named = KeyValueColumnFormatter(styles.kv_key, styles.kv_value, styles.reset, _shown)
    request_id = bare(styles.timestamp)

    def level(key: str, value: object) -> str:
        return f"{level_styles.get(str(value), '')}{value!s:{_LEVEL_WIDTH}}{styles.reset}"

    def field(key: str, value: object) -> str:
        return request_id(key, value) if key == "request_id" else named(key, value)

    return ConsoleRenderer(
        columns=[
            Column("", field),
            Column("timestamp", bare(styles.timestamp)),
            Column("level", level),
            Column("event", KeyValueColumnFormatter(None, styles.bright, styles.reset, str)),
            Column("logger", bare(styles.logger_name, "[", "]")),
            *(Column(name, bare(styles.kv_value)) for name in _BARE),
        ],
        sort_keys=False,
    )


def _shown(value: object) -> str:
    """Return the value as one word; in quotes and escaped if it holds spaces, quotes or control characters."""
    text = str(value)
    plain = text.isprintable() and not any(mark in text for mark in " ='\"")
    return text if plain or not isinstance(value, str) else repr(text)
