"""One log line per request, with its outcome.

The line names the error of a failed request with its class, its code and the reason. The reason never repeats what an
upstream said, which may quote a prompt. Names of end users are hashed, unless the operator wants them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from hashlib import blake2b

import structlog

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.telemetry.logs import clean, request_lines
from openai_dify_proxy.telemetry.records import Kind, RequestRecord

log = structlog.get_logger("openai_dify_proxy.access")

EVENTS: dict[Kind, str] = {
    "request": "request_finished",
    "rejection": "request_rejected",
    "response": "background_finished",
    "turn": "inner_turn_finished",
}

PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Routes that monitoring calls all the time; a success is logged at the level debug."""

_LEVELS = {logging.WARNING: "warning", logging.INFO: "info", logging.DEBUG: "debug"}

_HASH_BYTES = 6


class AccessLog:
    """The sink of records that writes their lines. ``hash_key`` keys the hashes of end users; None shows their names.

    ``hash_key`` has at most 64 bytes.
    """

    def __init__(self, hash_key: bytes | None = b"") -> None:
        self._log = log.bind()
        self._threshold: int = self._log.get_effective_level()
        self._lines = request_lines()
        self._user: Callable[[str], str] = str if hash_key is None else _hasher(hash_key)

    def __call__(self, record: RequestRecord) -> None:
        level, lines = _level(record), self._lines
        if level < self._threshold:
            return
        # Lines of other kinds have the id of the request in whose context they are written.
        if (
            lines is None
            or record.kind != "request"
            or not lines.write(_LEVELS[level], record.began_at + record.seconds, partial(self._line, record))
        ):
            self._log.log(level, **self._line(record))

    def _line(self, record: RequestRecord) -> dict[str, object]:
        """Return the event and the fields of the line."""
        line = _line(record)
        if record.end_user is not None:
            line["user"] = clean(self._user(record.end_user))
        return line


def _level(record: RequestRecord) -> int:
    error = record.error
    if record.status >= 500 or (error is not None and error.status >= 500) or record.kind == "rejection":
        return logging.WARNING
    return logging.DEBUG if record.route in PROBES and error is None else logging.INFO


def _hasher(key: bytes) -> Callable[[str], str]:
    def digest(name: str) -> str:
        return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES, key=key).hexdigest()

    return lru_cache(maxsize=4096)(digest)


def _line(record: RequestRecord) -> dict[str, object]:
    """Return the event and the fields of the line without the end user, the most important ones first."""
    line: dict[str, object] = {"event": EVENTS[record.kind]}
    if record.method:
        line["method"] = record.method
        line["path"] = record.route or clean(record.path)
    elif record.kind == "response":
        line["response_id"] = record.id
    if record.status or record.kind == "request":
        line["status"] = record.status or 499
    line["outcome"] = record.outcome
    if record.error is not None:
        _add_error(line, record.error)
    _add_turn(line, record)
    if record.prediction_ids:
        line["predictions"] = clean(",".join(record.prediction_ids))
    if record.caller:
        line["caller"] = record.label or record.caller
    if record.client is not None:
        line["client"] = record.client
    if record.kind == "request":
        own = record.id.startswith("req_") and record.id[4:].isalnum()  # holds nothing to mask
        line["request_id"] = record.id if own else clean(record.id)
    return line


def _add_error(line: dict[str, object], error: ProxyError) -> None:
    if error.code:
        line["outcome"] = f"{line['outcome']}: {clean(error.code)}"
        line["code"] = clean(error.code)
    line["error"] = type(error).__name__
    line["reason"] = clean(error.reason)
    if error.log is not None:
        line["detail"] = clean(error.log)


def _add_turn(line: dict[str, object], record: RequestRecord) -> None:
    if record.model is not None:
        line["model"] = clean(record.model)
    if record.app and record.app != record.model:
        line["app"] = record.app
    line["ms"] = round((record.ended - record.started) * 1000)
    if record.first_text:
        line["first_text_ms"] = round((record.first_text - record.started) * 1000)
    if record.queued:
        line["queue_ms"] = round(record.queued * 1000)
    if (usage := record.usage) is not None:
        line["prompt_tokens"] = usage.prompt_tokens
        line["completion_tokens"] = usage.completion_tokens
        if usage.price is not None:
            line["price"] = clean(usage.price)
            line["currency"] = usage.currency and clean(usage.currency)
        elif usage.prices:
            line["prices"] = clean(", ".join(f"{price} {currency}" for currency, price in usage.prices))
    if record.task_id is not None:
        line["task_id"] = clean(record.task_id)
