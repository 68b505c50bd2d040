"""The settings for logs and metrics; ``model`` has the other settings."""

from __future__ import annotations

from dataclasses import dataclass

from openai_dify_proxy.settings.values import Flag, LogFormat, LogLevel


@dataclass(frozen=True, kw_only=True)
class TelemetrySettings:
    """Logs and metrics"""

    log_level: LogLevel = "info"
    """The lowest level to log: `debug`, `info`, `warning`, `error` or `critical`.

    Keys, prompts and answers are not logged at any level."""
    log_format: LogFormat = "console"
    """The format of log lines: `console` for people, `json` for log collectors."""
    metrics_open: Flag = False
    """Serve [`GET /metrics`](metrics.md) without an admin key."""
    log_end_users: Flag = False
    """Log the names of end users, instead of [hashes](logs.md#end-users)."""
