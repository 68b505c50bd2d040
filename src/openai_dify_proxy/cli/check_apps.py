"""``check`` for apps: compares the apps in Dify with the settings, and with the requests of OpenAI clients."""

from __future__ import annotations

import asyncio
import time
from textwrap import fill

from rich.markup import escape
from rich.table import Table

from openai_dify_proxy.cli.app_reports import CONCURRENCY, AppReport, examine_app
from openai_dify_proxy.cli.check_output import CheckOutput, findings_as_json
from openai_dify_proxy.cli.output import print_findings, print_table, run_shown, shown_result
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.settings import AppSettings, Settings
from openai_dify_proxy.translate.dify.app_findings import app_features
from openai_dify_proxy.translate.dify.app_profile import HISTORY_NAMES, SYSTEM_NAMES, TOOL_NAMES, AppProfile, InputField
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.network import Network

ANSWER_SECONDS = 10.0
"""Seconds to wait for a response, after the connection was made."""

COLUMN_WIDTH = 40
"""Characters in a line of the cell for features."""


def check_apps(settings: Settings, out: CheckOutput) -> bool:
    """Print a table of the apps with the findings, and return whether every app works."""
    if not settings.apps:
        return _check_pass_through(settings, out)
    reports = run_shown("Checking the apps", _examine_all(settings))
    out.table("apps", map(_as_json, reports), lambda: _print_table(reports))
    return all(report.passed for report in reports)


def _check_pass_through(settings: Settings, out: CheckOutput) -> bool:
    """Check that the Dify is reachable. Without an app there is no key to check more."""
    assert settings.dify_api_url is not None
    problem = run_shown("Checking Dify", _unreachable(settings.dify_api_url, settings))
    success = "reachable. No apps are configured: requests must carry the key of their app."
    return out.part(settings.dify_api_url, problem, success)


async def _unreachable(url: str, settings: Settings) -> str | None:
    http = HttpClient(connect_timeout=settings.connect_timeout, network=Network(settings))
    try:
        async with asyncio.timeout(settings.connect_timeout + ANSWER_SECONDS):
            await DifyClient(http).welcome(url)
    except TimeoutError:
        return f"Dify accepts connections, but did not answer within {ANSWER_SECONDS:g} s. Check its log."
    except ProxyError as error:
        return error.log or error.message
    finally:
        await http.close()
    return None


async def _examine_all(settings: Settings) -> list[AppReport]:
    http = HttpClient(connect_timeout=settings.connect_timeout, network=Network(settings))
    profiles = Profiles(DifyClient(http), settings, time.monotonic)
    slots = asyncio.Semaphore(CONCURRENCY)

    async def examine(app: AppSettings) -> AppReport:
        async with slots:
            return await examine_app(app, settings, profiles)

    try:
        return await asyncio.gather(*(examine(app) for app in settings.apps.values()))
    finally:
        await http.close()


def _print_table(reports: list[AppReport]) -> None:
    table = Table("Model", "Works", "Dify", "Mode", "Inputs", "Features", show_lines=len(reports) > 1)
    rows = []
    for report in reports:
        name, works = escape(report.app.name), shown_result(report.passed)
        release, mode, inputs, features = _cells(report)
        table.add_row(name, works, release, mode, "\n".join(inputs), fill(", ".join(features), COLUMN_WIDTH))
        facts = [", ".join(filter(None, (f"works: {works}", release and f"Dify {release}", mode)))]
        facts += [f"inputs: {'; '.join(inputs)}"] if inputs else []
        facts += [f"features: {', '.join(features)}"] if features else []
        rows.append((name, "\n".join(facts)))
    print_table(table, rows)
    print_findings((report.app.name, finding) for report in reports for finding in report.findings)


def _cells(report: AppReport) -> tuple[str, str, list[str], list[str]]:
    """Return the release of Dify, the mode, the inputs and the features."""
    profile = report.profile
    if profile is None:
        return "", "", [], []
    inputs = [_input(report.app, profile, field) for field in profile.form]
    return escape(profile.version or "unknown"), profile.mode, inputs, list(app_features(profile))


def _input(app: AppSettings, profile: AppProfile, field: InputField) -> str:
    """Return the name, kind and source of an input."""
    source = _source(app, profile, field)
    filled = f" ← {source}" if source else ""
    return escape(f"{field.name} ({field.kind}{', required' if field.required else ''}){filled}")


def _source(app: AppSettings, profile: AppProfile, field: InputField) -> str | None:
    """Return what fills an input automatically, or None."""
    if field.name in app.inputs:
        return "settings"
    if not profile.converses and field.name == profile.question_input(app.input_variable):
        return "question"
    if app.system_prompt == f"input:{field.name}" or (
        app.system_prompt == "auto" and profile.text_input(SYSTEM_NAMES) is field
    ):
        return "system message"
    if profile.text_input(HISTORY_NAMES) is field:
        return "earlier turns"
    return "tools" if profile.text_input(TOOL_NAMES) is field else None


def _as_json(report: AppReport) -> dict[str, object]:
    profile = report.profile
    return {
        "model": report.app.name,
        "works": report.passed,
        "version": profile and profile.version,
        "mode": profile and profile.mode,
        "inputs": [
            {
                "name": field.name,
                "kind": field.kind,
                "required": field.required,
                "source": _source(report.app, profile, field),
            }
            for field in profile.form
        ]
        if profile
        else [],
        "features": list(app_features(profile)) if profile else [],
        "findings": findings_as_json(report.findings),
    }
