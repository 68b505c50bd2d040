from __future__ import annotations

import pytest

from openai_dify_proxy.translate.dify.dedupe import TextAssembly


def test_what_is_said_once_is_new() -> None:
    said = TextAssembly()
    assert [said.add("llm", "this "), said.add("", "is "), said.add("llm", "text")] == ["this ", "is ", "text"]
    assert said.text() == "this is text"
    assert (said.any, said.retried) == (True, False)


def test_a_retried_node_that_says_the_same_again() -> None:
    """The order that Dify 1.11 to 1.16 were seen to send: a part, ``node_retry``, all of it again."""
    said = TextAssembly()
    for part in ("this tex", "t is str", "eamed an"):
        said.add("llm", part)
    said.begin_retry("llm")
    assert said.retried
    again = [said.add("llm", part) for part in ("this tex", "t is str", "eamed and th", "en some")]
    assert again == ["", "", "d th", "en some"]
    assert said.text() == "this text is streamed and then some"


def test_a_node_that_is_retried_twice() -> None:
    said = TextAssembly()
    said.add("llm", "abcdef")
    said.begin_retry("llm")
    assert said.add("llm", "abc") == ""
    said.begin_retry("llm")
    assert [said.add("llm", "abcde"), said.add("llm", "fgh")] == ["", "gh"]
    assert said.text() == "abcdefgh"


def test_a_retried_node_that_says_something_else_makes_the_text_anew() -> None:
    said = TextAssembly()
    said.add("other", "Before. ")
    said.add("llm", "Yes, of ")
    said.add("other", "Meanwhile. ")
    said.add("llm", "course")
    said.begin_retry("llm")
    assert said.add("llm", "Yes, ") == ""
    assert said.add("llm", "no") is None
    assert said.text() == "Before. Meanwhile. Yes, no"
    assert said.add("llm", ", never") == ", never"
    said.begin_retry("llm")
    assert said.add("llm", "Yes, no, never") == ""
    assert said.text() == "Before. Meanwhile. Yes, no, never"


def test_a_retried_node_that_says_less() -> None:
    said = TextAssembly()
    said.add("llm", "a long text")
    said.begin_retry("llm")
    assert said.add("llm", "a long") == ""
    said.end_attempt("llm")
    assert said.text() == "a long text"
    assert said.retried


def test_a_node_in_a_loop_says_its_text_each_time() -> None:
    said = TextAssembly()
    for _ in range(3):
        assert said.add("llm", "again ") == "again "
        said.end_attempt("llm")
    said.begin_retry("llm")
    assert said.add("llm", "again ") == "again "
    assert said.text() == "again " * 4


def test_a_retry_before_anything_was_said() -> None:
    said = TextAssembly()
    said.begin_retry("llm")
    assert not said.retried
    assert said.add("llm", "text") == "text"


def test_nodes_are_retried_independently() -> None:
    said = TextAssembly()
    said.add("a", "one ")
    said.add("b", "two ")
    said.begin_retry("a")
    assert said.add("b", "two ") == "two "
    assert said.add("a", "one and") == "and"


def test_a_replacement_forgets_what_was_said() -> None:
    said = TextAssembly()
    said.add("llm", "bad words")
    said.begin_retry("llm")
    said.restart("Preset.")
    assert said.add("llm", " More.") == " More."
    assert said.text() == "Preset. More."
    said.restart("")
    assert said.text() == ""
    assert said.any


def test_a_replacement_by_nothing_says_nothing() -> None:
    said = TextAssembly()
    said.restart("")
    assert not said.any


# Agents of 1.16: what was streamed by step, the closing message, and what of it is new.
CLOSINGS: dict[str, tuple[list[list[str]], str, str]] = {
    "all of it was streamed": ([["Hel", "lo."]], "Hello.", ""),
    "nothing was streamed": ([], "Hello.", "Hello."),
    "its end was not": ([["Hel"]], "Hello.", "lo."),
    "only the last step is repeated": ([["Let me look. "], ["It is ", "blue."]], "It is blue.", ""),
    "only the last step, its end was not": ([["Let me look. "], ["It is "]], "It is blue.", "blue."),
    "all steps are repeated": ([["Let me look. "], ["It is blue."]], "Let me look. It is blue.", ""),
    "the last step streamed nothing": ([["Let me look. "], []], "It is blue.", "It is blue."),
    "the last step streamed nothing, all is repeated": ([["Let me look. "], []], "Let me look. Blue.", "Blue."),
    "the last step's text came before": ([["Hello."], []], "Hello.", ""),
    "its outer white space is gone": ([["\nHello.\n"]], "Hello.", ""),
    "it is empty": ([["Hello."]], "", ""),
}


@pytest.mark.parametrize(("steps", "closing", "new"), CLOSINGS.values(), ids=CLOSINGS)
def test_an_agents_closing_message(steps: list[list[str]], closing: str, new: str) -> None:
    said = TextAssembly()
    for step in steps:
        said.begin_agent_segment()
        for part in step:
            said.add("", part)
    assert said.missing_from_agent(closing) == new
