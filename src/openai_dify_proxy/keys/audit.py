"""The audit log: one line of JSON for each change of the keys, and for each call of an operator. It never contains a
key."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import structlog
from msgspec import json

OFF = "off"

log = structlog.get_logger(__name__)


class AuditLog:
    """Appends to the file ``path`` (``AUDIT_LOG``), which only this user can read. ``off`` writes nothing.

    The file is opened for each line, so it may be rotated at any time.
    """

    def __init__(self, path: str) -> None:
        self._path = None if path == OFF else Path(path).expanduser().absolute()

    def problem(self) -> str | None:
        """Return why the file cannot be written, or None. Creates it if it is missing."""
        try:
            self._append(b"")
        except OSError as error:
            return f"{self._path}: {error.strerror}"
        return None

    def _append(self, line: bytes) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def record(self, action: str, by: str, **facts: object) -> None:
        """Append a line; ``by`` names the operator. A failure is only logged, since the request is not at fault."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._append(json.encode({"time": time, "action": action, "by": by, **facts}) + b"\n")
        except OSError as error:
            log.error("audit_not_written", path=str(self._path), reason=error.strerror)  # noqa: TRY400 - no traceback
