"""Checks the apps in the background when a worker starts, and logs the problems that ``check`` would report.

It also reads the descriptions of the apps, which their first requests need. Of several workers one logs each problem:
they claim it by a file in the directory of their shared metrics.
"""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path

import structlog

from openai_dify_proxy.cli.app_reports import CONCURRENCY, AppReport, examine_app
from openai_dify_proxy.settings import AppSettings, Settings
from openai_dify_proxy.telemetry.metrics.exposition import DIRECTORY
from openai_dify_proxy.turns.profiles import Profiles

log = structlog.get_logger(__name__)


async def check_at_start(settings: Settings, profiles: Profiles) -> None:
    """Check all configured apps, and log the problems. It raises nothing: the server serves in any case."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def check(app: AppSettings) -> None:
        async with slots:
            report = await examine_app(app, settings, profiles)
        _log_problems(report)

    results = await asyncio.gather(*map(check, settings.apps.values()), return_exceptions=True)
    for error in results:
        if isinstance(error, Exception):  # a bug
            log.error("start_check_failed", exc_info=error)


def _log_problems(report: AppReport) -> None:
    for finding in report.findings:
        if finding.kind == "problem" and _claim(f"{report.app.name}\n{finding.text}"):
            log.warning("app_problem_found", app=report.app.name, reason=finding.text)


def _claim(text: str) -> bool:
    """Return whether this worker is the first to log this problem."""
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return True
    try:
        Path(directory, f"logged-{sha256(text.encode()).hexdigest()}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        pass  # the disk is full: better twice than never
    return True
