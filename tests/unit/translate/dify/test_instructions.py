"""Where the instructions about tools go: an input for them, an input for system messages, or behind the question."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.translate.dify.app_profile import AppProfile, InputField
from openai_dify_proxy.translate.dify.instructions import Extent, Instructions, place_instructions, without_instructions

INSTRUCTIONS = Instructions("Tools: a, b.", "Remember the tools.", "Call a.", "a, b")


def profile(*names: str, max_length: int | None = None) -> AppProfile:
    return AppProfile("chat", tuple(InputField("paragraph", name, max_length=max_length) for name in names))


def placed(extent: Extent, app: AppProfile, inputs: dict[str, Any]) -> str:
    return "".join(place_instructions(INSTRUCTIONS, extent, ["Hello?"], app, inputs))


@pytest.mark.parametrize(
    ("extent", "text"), [("full", "Tools: a, b."), ("reminder", "Remember the tools."), ("demand", "Call a.")]
)
def test_instructions_follow_the_question(extent: Extent, text: str) -> None:
    inputs: dict[str, Any] = {}
    question = placed(extent, profile(), inputs)
    assert question == f"Hello?\n\n<instructions>\n{text}\n</instructions>"
    assert inputs == {}
    assert without_instructions(question) == "Hello?"


def test_nothing_follows_a_question_without_demand() -> None:
    nothing = Instructions("Tools.", "Tools!", "", "a")
    assert list(place_instructions(nothing, "demand", ["Hello?"], profile(), {})) == ["Hello?"]


@pytest.mark.parametrize("name", ["tools", "tool_instructions", "system_prompt"])
@pytest.mark.parametrize("extent", ["full", "demand"])
def test_an_input_gets_the_full_text_on_every_turn(name: str, extent: Extent) -> None:
    inputs: dict[str, Any] = {}
    assert placed(extent, profile(name), inputs) == "Hello?"
    assert inputs == {name: "Tools: a, b."}


def test_input_for_tools_precedes_that_for_system_messages() -> None:
    inputs: dict[str, Any] = {"system_prompt": "Be brief."}
    placed("full", profile("system_prompt", "tools"), inputs)
    assert inputs == {"system_prompt": "Be brief.", "tools": "Tools: a, b."}


def test_input_keeps_its_system_message() -> None:
    inputs: dict[str, Any] = {"system_prompt": "Be brief."}
    placed("full", profile("system_prompt"), inputs)
    assert inputs == {"system_prompt": "Be brief.\n\nTools: a, b."}


def test_input_that_is_too_short_gets_nothing() -> None:
    inputs: dict[str, Any] = {}
    question = placed("full", profile("tools", max_length=5), inputs)
    assert question.endswith("</instructions>")
    assert inputs == {}


@pytest.mark.parametrize("text", ["", "Hello?", "<instructions>\nx\n</instructions>", "a </instructions>"])
def test_other_questions_are_unchanged(text: str) -> None:
    assert without_instructions(text) == text
