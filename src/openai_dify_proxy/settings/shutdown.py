"""The settings for the end of the server."""

from __future__ import annotations

from dataclasses import dataclass

from openai_dify_proxy.settings.values import SecondsOrNone


@dataclass(frozen=True, kw_only=True)
class ShutdownSettings:
    """Shutdown"""

    shutdown_grace: SecondsOrNone = 20
    """How long running answers may take to finish after SIGTERM, Ctrl-C or a reload."""
    shutdown_delay: SecondsOrNone = 0
    """How long the server continues to accept requests after SIGTERM, while `/ready` answers 503.

    [Load balancers](operations.md#restarts-without-failed-requests) notice it meanwhile and send no more requests. It
    comes before `SHUTDOWN_GRACE`, and Ctrl-C skips it."""
