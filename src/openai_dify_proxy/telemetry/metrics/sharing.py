"""The directory in which the processes of a server share their metrics."""

from __future__ import annotations

import os
import tempfile

import structlog

from openai_dify_proxy.telemetry.metrics.exposition import DIRECTORY

log = structlog.get_logger(__name__)


def share_metrics() -> str | None:
    """Let the processes that start from now on share their metrics, in a new directory. Return its path.

    Without a place for it, each process exposes its own metrics only.
    """
    try:
        path = tempfile.mkdtemp(prefix="openai-dify-proxy-metrics-")
    except OSError as error:
        log.warning("metrics_unshared", reason=str(error))
        os.environ.pop(DIRECTORY, None)
        return None
    os.environ[DIRECTORY] = path
    return path
