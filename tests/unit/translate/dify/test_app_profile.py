from __future__ import annotations

import pytest
from msgspec import json

from openai_dify_proxy.translate.dify.app_profile import QUESTION_NAMES, SYSTEM_NAMES, AppProfile, InputField, read_form
from openai_dify_proxy.wire.dify import APP_PARAMETERS, AppParameters, Mode, Switch


def text(name: str, *, required: bool = False) -> InputField:
    return InputField("text-input", name, required=required)


def workflow(*form: InputField) -> AppProfile:
    return AppProfile("workflow", form)


def test_read_form() -> None:
    parameters = APP_PARAMETERS.decode(
        json.encode(
            {
                "opening_statement": "",
                "user_input_form": [
                    {
                        "text-input": {
                            "label": "Topic",
                            "variable": "topic",
                            "required": True,
                            "max_length": 48,
                            "default": "",
                            "options": [],
                        }
                    },
                    {"select": {"label": "Tone", "variable": "tone", "required": False, "options": ["a", "b"]}},
                    {"number": {"variable": "count", "required": None, "default": 3, "type": "number"}},
                ],
                "system_parameters": {"image_file_size_limit": 10},
            }
        )
    )
    assert read_form(parameters) == (
        InputField("text-input", "topic", "Topic", required=True, default="", max_length=48),
        InputField("select", "tone", "Tone", options=("a", "b")),
        InputField("number", "count", default=3),
    )


def test_malformed_properties_of_fields_are_ignored() -> None:
    """A field is used even if its label or limit is malformed."""
    malformed = {"variable": "a", "label": {"en": "A"}, "required": 1, "max_length": "48", "options": "x"}
    choice = {"variable": "b", "options": ["x", 7]}
    parameters = APP_PARAMETERS.decode(
        json.encode({"user_input_form": [{"text-input": malformed}, {"select": choice}]})
    )
    assert read_form(parameters) == (
        InputField("text-input", "a", required=True),
        InputField("select", "b", options=("x", "7")),
    )


# The form of an app without a query, the configured variable, the inputs of the request, the expected field.
QUESTION_FIELDS: dict[str, tuple[list[InputField], str | None, set[str], str | None]] = {
    "configured": ([text("a", required=True), text("b")], "b", set(), "b"),
    "configured, with any form": ([], "b", set(), "b"),
    "the single required one": ([text("query"), text("topic", required=True), text("c")], None, set(), "topic"),
    "best-named among required ones": ([text("a", required=True), text("text", required=True)], None, set(), "text"),
    "best-named among optional ones": ([text("message"), text("question"), text("c")], None, set(), "question"),
    "best-named, in any case": ([text("Query"), text("b")], None, set(), "Query"),
    "the only one": ([text("topic")], None, set(), "topic"),
    "the only text": ([InputField("number", "n", required=True), InputField("paragraph", "p")], None, set(), "p"),
    "the only one without an input in the request": ([text("a"), text("b")], None, {"a"}, "b"),
    "not the one for system messages": ([text("system_prompt", required=True), text("b")], None, set(), "b"),
    "not the one for histories": ([text("chat_history"), text("b")], None, set(), "b"),
    "several": ([text("a"), text("b")], None, set(), None),
    "none": ([], None, set(), None),
    "no text": ([InputField("number", "query", required=True)], None, set(), None),
}


@pytest.mark.parametrize(("form", "configured", "inputs", "name"), QUESTION_FIELDS.values(), ids=QUESTION_FIELDS)
def test_the_field_of_the_question(
    form: list[InputField], configured: str | None, inputs: set[str], name: str | None
) -> None:
    assert workflow(*form).question_input(configured, inputs) == name


def test_names_are_tried_in_order() -> None:
    profile = workflow(text("text"), text("Query"), InputField("number", "query"))
    found = profile.text_input(QUESTION_NAMES)
    assert found is not None
    assert found.name == "Query"
    assert profile.text_input(SYSTEM_NAMES) is None


@pytest.mark.parametrize(
    ("mode", "converses"),
    [
        ("chat", True),
        ("agent-chat", True),
        ("advanced-chat", True),
        ("agent", True),
        ("completion", False),
        ("workflow", False),
    ],
)
def test_which_modes_have_conversations(mode: Mode, converses: bool) -> None:
    assert AppProfile(mode).converses is converses


@pytest.mark.parametrize(("limit", "fits"), [(None, True), (0, True), (4, False), (5, True)])
def test_texts_that_fit(limit: int | None, fits: bool) -> None:
    assert InputField("text-input", "a", max_length=limit).fits("héllo") is fits


@pytest.mark.parametrize(
    ("version", "mode", "hides"),
    [
        ("1.12.1", "advanced-chat", False),
        ("1.13.0", "advanced-chat", True),
        ("1.14.2", "advanced-chat", True),
        ("1.15.0", "advanced-chat", True),
        ("1.16.1", "advanced-chat", False),
        ("1.13.0", "chat", False),
        (None, "advanced-chat", False),
    ],
)
def test_which_versions_do_not_report_a_lost_conversation(version: str | None, mode: Mode, hides: bool) -> None:
    """1.13 and 1.14 send nothing for 300 s, 1.15 starts a new conversation; other versions answer 404."""
    assert AppProfile(mode, version=version).hides_lost_conversations is hides


@pytest.mark.parametrize(
    ("version", "as_text"),
    [
        (None, False),
        ("", False),
        ("0.15.8", True),
        ("1.4.0", True),
        ("1.11.2", True),
        ("1.12.1-fix1", True),
        ("1.13.0", False),
        ("1.16.1", False),
        ("2.0.0", False),
        ("main", False),
    ],
)
def test_which_versions_take_json_as_text(version: str | None, as_text: bool) -> None:
    assert AppProfile("workflow", version=version).takes_json_as_text is as_text


@pytest.mark.parametrize(
    ("version", "expected"), [("1.16.1", (1, 16)), ("1.14.0-rc1", (1, 14)), ("main", None), (None, None)]
)
def test_release(version: str | None, expected: tuple[int, int] | None) -> None:
    assert AppProfile("chat", version=version).release == expected


@pytest.mark.parametrize(
    ("mode", "version", "expected"),
    [
        ("advanced-chat", "1.14.0", True),
        ("workflow", "1.16.1", True),
        ("workflow", "1.13.3", False),
        ("workflow", None, False),
        ("chat", "1.16.1", False),
    ],
)
def test_runs_of_graphs_are_resumable_from_1_14_on(mode: Mode, version: str | None, expected: bool) -> None:
    assert AppProfile(mode, version=version).resumable is expected


@pytest.mark.parametrize(("switch", "expected"), [(None, False), (Switch(), False), (Switch(True), True)])
def test_an_app_may_suggest_questions(switch: Switch | None, expected: bool) -> None:
    parameters = AppParameters(suggested_questions_after_answer=switch)
    assert AppProfile("chat", parameters=parameters).suggests_questions is expected
