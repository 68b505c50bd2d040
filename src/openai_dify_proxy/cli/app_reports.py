"""Compare an app in Dify with its settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.settings import AppSettings, Settings
from openai_dify_proxy.translate.dify.app_findings import Finding, all_work, app_findings
from openai_dify_proxy.translate.dify.app_profile import SYSTEM_NAMES, TOOL_NAMES, AppProfile
from openai_dify_proxy.translate.dify.request import AppRules
from openai_dify_proxy.turns.apps import configured_dify_app
from openai_dify_proxy.turns.profiles import Profiles

CONCURRENCY = 4
"""Apps that are queried at the same time. A Dify API process has ten connections, and other clients need some."""


class AppReport(NamedTuple):
    app: AppSettings
    profile: AppProfile | None
    findings: list[Finding]

    @property
    def passed(self) -> bool:
        return all_work(self.findings)


async def examine_app(app: AppSettings, settings: Settings, profiles: Profiles) -> AppReport:
    """Compare an app in Dify with its settings. An error of Dify is a finding."""
    try:
        profile = await profiles.get(configured_dify_app(app, settings), app.mode)
    except ProxyError as error:
        return AppReport(app, None, [Finding("problem", f"{error.log or error.message} Its Dify is {app.api_url}.")])
    rules = AppRules(app.input_variable, app.system_prompt, app.inputs)
    return AppReport(app, profile, [*app_findings(rules, app.mode, profile), *_uses(app, profile, settings)])


def _uses(app: AppSettings, profile: AppProfile, settings: Settings) -> Iterator[Finding]:
    """Yield notes about uses that the settings name for the app."""
    if app.name == settings.audio_app:
        for name, shown, route in _SPEECH:
            switch = getattr(profile.parameters, name)
            if switch is None or not switch.enabled:
                yield Finding(
                    "note",
                    f"AUDIO_APP is this app, but its feature '{shown}' is off in Dify: {route} answers with a 400. "
                    "Switch it on, and publish the app.",
                )
    if (app.tools or settings.tools) == "emulate" and not any(map(profile.text_input, (TOOL_NAMES, SYSTEM_NAMES))):
        yield Finding(
            "note",
            "Instructions about tools follow the question, so retrieval sees them too. Add a text input named 'tools' "
            "to the app, and use it in the model's prompt.",
        )


_SPEECH = (
    ("speech_to_text", "Speech to Text", "/v1/audio/transcriptions"),
    ("text_to_speech", "Text to Speech", "/v1/audio/speech"),
)
"""The switches for sound: their names in Dify's API and on its pages, and the routes that need them."""
