"""What does not work in an app, and what is worth knowing about it."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.translate.dify.app_findings import Finding, all_work, app_features, app_findings
from openai_dify_proxy.translate.dify.app_profile import AppProfile, InputField
from openai_dify_proxy.translate.dify.request import AppRules
from openai_dify_proxy.wire.dify import AppInfo, AppParameters, Mode, Switch


def profile(mode: Mode, *fields: InputField, version: str = "1.16.1", reported: bool = True) -> AppProfile:
    return AppProfile(mode, fields, AppInfo(mode=mode if reported else None), version=version)


def text(name: str, **more: Any) -> InputField:
    return InputField("paragraph", name, **more)


NUMBER = InputField("number", "count")
TONE = InputField("select", "tone", required=True)

CASES: list[tuple[AppRules, Mode | None, AppProfile, list[str]]] = [
    (AppRules(), None, profile("chat"), []),
    (AppRules(), "chat", profile("workflow", text("query")), ["problem: mode is 'chat' in the settings, but 'workf"]),
    (AppRules(input_variable="topic"), None, profile("workflow", text("query"), NUMBER), [
        "problem: input_variable names 'topic', which is not an input of the app. Its text inputs are: query.",
    ]),
    (AppRules(system_prompt="input:rules"), None, profile("chat", NUMBER), [
        "problem: system_prompt names 'rules', which is not an input of the app. Remove system_prompt.",
    ]),
    (AppRules(inputs={"size": 1}), None, profile("chat", NUMBER), [
        "problem: inputs names 'size', which is not an input of the app. Its inputs are: count. Use one of them,",
    ]),
    (AppRules(inputs={"count": 1}), None, profile("chat", NUMBER), []),
    (AppRules(), None, profile("workflow", text("first"), text("second")), [
        "problem: Several inputs take text (first, second), and none has a usual name for a question.",
    ]),
    (AppRules(), None, profile("workflow", NUMBER), ["note: The app has no text input"]),
    (AppRules(), None, profile("workflow"), ["note: The app has no text input"]),
    (AppRules(), None, profile("completion", text("query"), TONE), [
        "note: The app requires the input 'tone', which OpenAI clients do not send.",
    ]),
    (AppRules(inputs={"tone": "dry"}), None, profile("completion", text("query"), TONE), []),
    (AppRules(), None, profile("chat", reported=False), ["note: This Dify does not report the mode of apps"]),
    (AppRules(), None, profile("advanced-chat", version="1.13.0"), ["note: Dify 1.13.0 does not respond when"]),
    (AppRules(), None, profile("advanced-chat", version="1.15.2"), ["note: Dify 1.15.2 starts a new conversation"]),
    (AppRules(), None, profile("advanced-chat", version="unknown"), []),
]  # fmt: skip


def test_an_app_works_with_notes_and_without_problems() -> None:
    note, problem = Finding("note", "a"), Finding("problem", "b")
    assert all_work([])
    assert all_work([note])
    assert not all_work([note, problem])


@pytest.mark.parametrize(("rules", "mode", "described", "expected"), CASES)
def test_findings(rules: AppRules, mode: Mode | None, described: AppProfile, expected: list[str]) -> None:
    found = [f"{finding.kind}: {finding.text}" for finding in app_findings(rules, mode, described)]
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_a_wrong_input_variable_leaves_the_question_to_any_text_input() -> None:
    described = profile("workflow", text("query", required=True))
    assert [finding.kind for finding in app_findings(AppRules("topic"), None, described)] == ["problem"]


def test_features_are_the_switches_that_are_on() -> None:
    parameters = AppParameters(speech_to_text=Switch(enabled=True), text_to_speech=Switch(enabled=False))
    assert list(app_features(AppProfile("chat", parameters=parameters))) == ["speech to text"]
    assert Finding("note", "a") == Finding("note", "a")
