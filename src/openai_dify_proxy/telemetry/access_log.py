"""One log line per request, with its outcome.

The line names the error of a failed request with its class, its code and the reason. The reason never repeats what an
upstream said, which may quote a prompt. Names of end users are hashed, unless the operator wants them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

import structlog

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.events import Usage
from openai_dify_proxy.telemetry.logs import clean, write_request_line
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
        self._log = log.bind()  # binding costs more than a line that the level leaves out
        self._user: Callable[[str], str] = str if hash_key is None else _hasher(hash_key)

    def __call__(self, record: RequestRecord) -> None:
        level = _level(record)
        if not self._log.is_enabled_for(level):
            return
        fields = _fields(record)
        if record.end_user is not None:
            fields["user"] = clean(self._user(record.end_user))
        event = EVENTS[record.kind]
        if not write_request_line(_LEVELS[level], {"event": event, **fields}):
            self._log.log(level, event, **fields)


def _level(record: RequestRecord) -> int:
    error = record.error
    if record.status >= 500 or (error is not None and error.status >= 500) or record.kind == "rejection":
        return logging.WARNING
    return logging.DEBUG if record.route in PROBES and error is None else logging.INFO


def _hasher(key: bytes) -> Callable[[str], str]:
    def digest(name: str) -> str:
        return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES, key=key).hexdigest()

    return lru_cache(maxsize=4096)(digest)


def _fields(record: RequestRecord) -> dict[str, object]:
    """Return the fields of the line without the end user, the most important ones first."""
    fields: dict[str, object] = {}
    if record.method:
        fields["method"] = record.method
        fields["path"] = record.route or clean(record.path)
    elif record.kind == "response":
        fields["response_id"] = record.id
    if record.status or record.kind == "request":
        fields["status"] = record.status or 499
    fields["outcome"] = record.outcome
    if record.error is not None:
        _add_error(fields, record.error)
    _add_turn(fields, record)
    if record.prediction_ids:
        fields["predictions"] = clean(",".join(record.prediction_ids))
    if record.caller:
        fields["caller"] = record.label or record.caller
    if record.client is not None:
        fields["client"] = record.client
    if record.kind == "request":
        own = record.id.startswith("req_") and record.id[4:].isalnum()  # holds nothing to mask
        fields["request_id"] = record.id if own else clean(record.id)
    return fields


def _add_error(fields: dict[str, object], error: ProxyError) -> None:
    if error.code:
        fields["outcome"] = f"{fields['outcome']}: {clean(error.code)}"
        fields["code"] = clean(error.code)
    fields["error"] = type(error).__name__
    fields["reason"] = clean(error.reason)
    if error.log is not None:
        fields["detail"] = clean(error.log)


def _add_turn(fields: dict[str, object], record: RequestRecord) -> None:
    if record.model is not None:
        fields["model"] = clean(record.model)
    if record.app and record.app != record.model:
        fields["app"] = record.app
    fields["ms"] = _milliseconds(record.seconds)
    if record.first_text:
        fields["first_text_ms"] = _milliseconds(record.first_text - record.started)
    if record.queued:
        fields["queue_ms"] = _milliseconds(record.queued)
    if record.usage is not None:
        _add_usage(fields, record.usage)
    if record.task_id is not None:
        fields["task_id"] = clean(record.task_id)


def _add_usage(fields: dict[str, object], usage: Usage) -> None:
    fields["prompt_tokens"] = usage.prompt_tokens
    fields["completion_tokens"] = usage.completion_tokens
    if usage.price is not None:
        fields["price"] = clean(usage.price)
        fields["currency"] = usage.currency and clean(usage.currency)
    elif usage.prices:
        fields["prices"] = clean(", ".join(f"{price} {currency}" for currency, price in usage.prices))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
