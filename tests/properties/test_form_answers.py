"""Read any answer to a form: it is understood or rejected, and an action is found however it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.events import FormAction
from openai_dify_proxy.translate.dify.forms import fill_form
from openai_dify_proxy.translate.human_input import find_action
from openai_dify_proxy.translate.openai.form_answers import read_result
from openai_dify_proxy.translate.turn_request import FormAnswer
from openai_dify_proxy.wire import dify
from tests.properties.strategies import json_values, texts

ACTIONS = [FormAction("ok", "Approve it"), FormAction("Straße", "Strasse"), FormAction("no", "İptal")]
results = st.one_of(
    texts,
    json_values().map(json.dumps),
    st.fixed_dictionaries({}, optional={"action": json_values(), "inputs": json_values()}).map(json.dumps),
    st.sampled_from(['{"action": "ok"', '{"action": "ok"}}', '"ok', "{", "{}", '"\ud800"', "null"]),
)
objects = st.dictionaries(st.text(max_size=5), json_values(), max_size=5)

_T = TypeVar("_T")


def attempt(work: Callable[[], _T]) -> _T | InvalidRequest:
    """Return the result of ``work``, or the only error that it may raise."""
    try:
        return work()
    except InvalidRequest as error:
        return error


@given(results)
def test_a_result_is_an_answer_or_rejected(text: str) -> None:
    answer = attempt(lambda: read_result(text, "t", "messages"))
    if isinstance(answer, InvalidRequest):
        assert (answer.param, answer.code) == ("messages", "invalid_form_data")
    else:
        assert answer.inputs is None or isinstance(answer.inputs, dict)
        assert answer.token == "t"


@given(st.text(), objects)
def test_an_object_is_read_as_it_was_written(action: str, inputs: dict[str, Any]) -> None:
    text = json.dumps({"action": action, "inputs": inputs})
    assert read_result(text, "t", "input") == FormAnswer("t", action, json.loads(json.dumps(inputs)), "input")


@given(st.sampled_from(ACTIONS), st.sampled_from([str.upper, str.lower, str.title, str.casefold]), st.booleans())
def test_an_action_is_found_in_any_case(action: FormAction, change: Any, by_title: bool) -> None:
    written = change(action.title if by_title else action.id)
    found = find_action(f" {written}\n", ACTIONS)
    if written.casefold() in {action.id.casefold(), action.title.casefold()}:
        assert found == action


@given(json_values().map(lambda value: [value, {"output_variable_name": "a", "default": value}]), objects)
def test_any_form_is_filled_or_the_answer_rejected(inputs: list[Any], sent: dict[str, Any]) -> None:
    fields = [field for field in inputs if isinstance(field, dict)]
    form = dify.PendingForm(fields, None, [dify.ActionData("ok")])
    submission = attempt(lambda: fill_form(form, FormAnswer("t", "OK", sent, "messages"), "u"))
    if isinstance(submission, InvalidRequest):
        assert submission.code == "invalid_form_data"
    else:
        assert submission.action == "ok"
        assert all(submission.inputs[name] is value for name, value in sent.items())
