"""The directory in which the processes of a server share their metrics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from openai_dify_proxy.telemetry.metrics.exposition import DIRECTORY

log = structlog.get_logger(__name__)


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Let the processes that start within the block share their metrics, in a new directory.

    Without a place for it, each process exposes its own metrics only.
    """
    try:
        directory = tempfile.TemporaryDirectory(prefix="openai-dify-proxy-metrics-", ignore_cleanup_errors=True)
    except OSError as error:
        log.warning("metrics_unshared", reason=str(error))
        os.environ.pop(DIRECTORY, None)
        yield
        return
    with directory as path:
        os.environ[DIRECTORY] = path
        try:
            yield
        finally:
            del os.environ[DIRECTORY]
