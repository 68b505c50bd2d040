"""Read the fields and results that answer forms."""

from __future__ import annotations

from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.form_answers import (
    MAX_RESULT,
    NO_FORMS,
    FormFields,
    read_form_fields,
    read_result,
)
from openai_dify_proxy.translate.turn_request import FormAnswer, HistoryMessage
from openai_dify_proxy.wire.openai.chat import CompletionFields, HumanInputAnswer

TOOL = HistoryMessage("tool", "yes", call_id="call_hi_tok")
USER = HistoryMessage("user", "yes")
OTHER = HistoryMessage("tool", "yes", call_id="call_1")


@pytest.mark.parametrize(
    ("text", "action", "inputs"),
    [
        ("Approve", "Approve", None),
        (' {"action": "ok"}', "ok", None),
        ('{"action": "ok", "inputs": null, "more": 1}', "ok", None),
        ('{"action": "ok", "inputs": {"note": ["x"]}}', "ok", {"note": ["x"]}),
        ('"ok"', "ok", None),
        ('{"action": ', '{"action": ', None),
        ("[1]", "[1]", None),
        ("12", "12", None),
        ("", "", None),
        ('"' + "x" * MAX_RESULT, '"' + "x" * MAX_RESULT, None),
    ],
)
def test_results(text: str, action: str, inputs: dict[str, Any] | None) -> None:
    assert read_result(text, "tok", "messages") == FormAnswer("tok", action, inputs, "messages")


@pytest.mark.parametrize("text", ["{}", '{"action": 1}', '{"action": "ok", "inputs": "x"}', '{"inputs": {}}'])
def test_unreadable_results(text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_result(text, "tok", "input")
    assert (error.value.param, error.value.code) == ("input", "invalid_form_data")


@pytest.mark.parametrize(
    ("sent", "asked", "fields"),
    [
        (None, [USER], NO_FORMS),
        (None, [OTHER], NO_FORMS),
        ("tool", [USER, OTHER], FormFields("tool")),
        ("text", [TOOL], FormFields("text", FormAnswer("tok", "yes", None, "messages"))),
        (HumanInputAnswer("ok"), [TOOL], FormFields(None, FormAnswer(None, "ok", None, "human_input"))),
        (HumanInputAnswer("ok", {}, "t-1"), [], FormFields(None, FormAnswer("t-1", "ok", {}, "human_input"))),
    ],
)
def test_fields(sent: object, asked: list[HistoryMessage], fields: FormFields) -> None:
    request = CompletionFields(human_input=sent)  # type: ignore[arg-type]
    assert read_form_fields(request, asked, "messages") == fields


@pytest.mark.parametrize("asked", [[TOOL, USER], [TOOL, OTHER], [TOOL, TOOL]])
def test_a_result_beside_other_messages(asked: list[HistoryMessage]) -> None:
    with pytest.raises(InvalidRequest, match="only new message"):
        read_form_fields(CompletionFields(), asked, "messages")


def test_an_invalid_token() -> None:
    with pytest.raises(InvalidRequest) as error:
        read_form_fields(CompletionFields(human_input=HumanInputAnswer("ok", token="a b")), [], "messages")
    assert error.value.param == "human_input.token"
