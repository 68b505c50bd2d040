"""Fill in forms with the client's answers."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.dify.forms import MAX_ACTIONS, fill_form, read_actions
from openai_dify_proxy.translate.turn_request import FormAnswer
from openai_dify_proxy.wire.dify import ActionData, FormSubmission, PendingForm

NOTE = {"output_variable_name": "note", "type": "paragraph", "default": None}
TONE = {"output_variable_name": "tone", "type": "select", "default": {"type": "constant", "value": "kind"}}
FILE = {"output_variable_name": "scan", "type": "file"}
ACTIONS = [ActionData("ok", "Approve"), ActionData("no", "ok")]

# The form's inputs, the resolved defaults, the action, the sent inputs, and what Dify gets.
FILLED: list[tuple[list[Any], dict[str, Any] | None, str, dict[str, Any] | None, tuple[str, dict[str, Any]]]] = [
    ([], None, "APPROVE ", None, ("ok", {})),
    ([], None, "OK", {}, ("ok", {})),  # an id comes before a title
    ([NOTE], None, "ok", None, ("ok", {"note": ""})),
    ([NOTE, TONE], {"note": "draft"}, "ok", None, ("ok", {"note": "draft", "tone": "kind"})),
    ([NOTE, TONE], {}, "no", {"note": "why"}, ("no", {"note": "why", "tone": "kind"})),
    ([TONE], {}, "no", {"tone": None, "more": 1}, ("no", {"tone": None, "more": 1})),
]


@pytest.mark.parametrize(("inputs", "resolved", "action", "sent", "filled"), FILLED)
def test_answers(inputs: Any, resolved: Any, action: str, sent: Any, filled: tuple[str, Any]) -> None:
    form = PendingForm(inputs, resolved, ACTIONS)
    assert fill_form(form, FormAnswer("t", action, sent, "messages"), "u") == FormSubmission(filled[1], filled[0], "u")


@pytest.mark.parametrize(
    ("param", "action", "sent", "message", "place"),
    [
        ("messages", "maybe", None, "ok (Approve), no (ok)", "messages"),
        ("human_input", "maybe", None, "ok (Approve), no (ok)", "human_input.action"),
        ("human_input", "ok", {}, "note, scan", "human_input"),
        ("input", "ok", None, "scan", "input"),
    ],
)
def test_rejected_answers(param: str, action: str, sent: Any, message: str, place: str) -> None:
    form = PendingForm([NOTE, FILE], None, ACTIONS)
    with pytest.raises(InvalidRequest) as error:
        fill_form(form, FormAnswer("t", action, sent, param), "u")
    assert message in error.value.message
    assert (error.value.param, error.value.code) == (place, "invalid_form_data")


def test_a_form_without_inputs_and_many_actions() -> None:
    many = [ActionData(f"a{number}", "x") for number in range(100)]
    assert len(read_actions(many)) == MAX_ACTIONS
    with pytest.raises(InvalidRequest, match=r"a19 \(x\) and 30 more"):
        fill_form(PendingForm(user_actions=many), FormAnswer("t", "?", None, "messages"), "u")
