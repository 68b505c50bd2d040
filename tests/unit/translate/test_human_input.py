"""Forms as calls: their ids, and the actions that texts name."""

from __future__ import annotations

import pytest

from openai_dify_proxy.events import FormAction
from openai_dify_proxy.translate.human_input import find_action, token_of_call

ACTIONS = (FormAction("yes", "Go on"), FormAction("no", "Stop"), FormAction("stop", "Yes"), FormAction("x", "Stop"))


@pytest.mark.parametrize(
    ("call_id", "token"),
    [
        (None, None),
        ("call_1", None),
        ("call_hi_", None),
        ("call_hi_a.b", None),
        ("call_hi_" + "a" * 129, None),
        ("call_hi_TKXpxqWqmV1dp7HXYxYyqf", "TKXpxqWqmV1dp7HXYxYyqf"),
    ],
)
def test_tokens_of_calls(call_id: str | None, token: str | None) -> None:
    assert token_of_call(call_id) == token


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("yes", "yes"),
        (" YES\n", "yes"),
        ("go ON", "yes"),
        ("Stop", "stop"),
        ("no", "no"),
        ("no.", None),
        ("", None),
        ("no" + " " * 1000, None),
    ],
)
def test_ids_come_before_titles(text: str, action: str | None) -> None:
    found = find_action(text, ACTIONS)
    assert (found and found.id) == action


def test_of_equal_titles_the_first_counts() -> None:
    found = find_action("same", [FormAction("a", "Same"), FormAction("b", "same")])
    assert found is not None
    assert found.id == "a"
