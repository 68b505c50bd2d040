"""Logs: one line per event, for people or for machines, with the request id in each line of a request.

Everything that logs in this process comes out here, uvicorn and asyncio included. Keys, prompts and answers are
never logged; ``mask_keys`` stands behind that rule and does not replace it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from openai_dify_proxy.errors import mask_keys


def configure_logging(level: str = "info", log_format: Literal["console", "json"] = "console") -> None:
    """Send all logs of at least ``level`` to standard error; replaces what an earlier call set up."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
    # What uvicorn says at info level of starting and stopping is told by the command line and the app.
    logging.getLogger("uvicorn").setLevel(threshold if threshold <= logging.DEBUG else max(threshold, logging.WARNING))
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    structlog.configure(
        processors=[*shared, *_rendering(log_format)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def bind_request(request_id: str, **context: object) -> None:
    """Put ``request_id`` and ``context`` into every further line of the running task and of tasks it starts."""
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


def _rendering(log_format: Literal["console", "json"]) -> list[Processor]:
    """Tracebacks become text before keys are masked, since an exception's message may hold one."""
    if log_format == "json":
        return [structlog.processors.format_exc_info, _mask, structlog.processors.JSONRenderer(ensure_ascii=False)]
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [structlog.processors.format_exc_info, _mask, console]
