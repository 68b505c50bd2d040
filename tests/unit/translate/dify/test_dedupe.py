from __future__ import annotations

import pytest

from openai_dify_proxy.translate.dify.dedupe import MAX_COMPARED_ANSWERS, TextAssembly


def test_text_without_a_retry_is_new() -> None:
    assembly = TextAssembly()
    assert [assembly.add("llm", "this "), assembly.add("", "is "), assembly.add("llm", "text")] == [
        "this ",
        "is ",
        "text",
    ]
    assert assembly.text() == "this is text"
    assert (assembly.any, assembly.retried) == (True, False)


def test_a_retried_node_that_repeats_its_text() -> None:
    """Dify 1.11 to 1.16 send part of the text, ``node_retry``, and the whole text again."""
    assembly = TextAssembly()
    for part in ("this tex", "t is str", "eamed an"):
        assembly.add("llm", part)
    assembly.begin_retry("llm")
    assert assembly.retried
    again = [assembly.add("llm", part) for part in ("this tex", "t is str", "eamed and th", "en some")]
    assert again == ["", "", "d th", "en some"]
    assert assembly.text() == "this text is streamed and then some"


def test_a_node_that_is_retried_twice() -> None:
    assembly = TextAssembly()
    assembly.add("llm", "abcdef")
    assembly.begin_retry("llm")
    assert assembly.add("llm", "abc") == ""
    assembly.begin_retry("llm")
    assert [assembly.add("llm", "abcde"), assembly.add("llm", "fgh")] == ["", "gh"]
    assert assembly.text() == "abcdefgh"


def test_a_retried_node_with_another_text_replaces_the_first_text() -> None:
    assembly = TextAssembly()
    assembly.add("other", "Before. ")
    assembly.add("llm", "Yes, of ")
    assembly.add("other", "Meanwhile. ")
    assembly.add("llm", "course")
    assembly.begin_retry("llm")
    assert assembly.add("llm", "Yes, ") == ""
    assert assembly.add("llm", "no") is None
    assert assembly.text() == "Before. Meanwhile. Yes, no"
    assert assembly.add("llm", ", never") == ", never"
    assembly.begin_retry("llm")
    assert assembly.add("llm", "Yes, no, never") == ""
    assert assembly.text() == "Before. Meanwhile. Yes, no, never"


def test_a_retried_node_with_a_shorter_text() -> None:
    assembly = TextAssembly()
    assembly.add("llm", "a long text")
    assembly.begin_retry("llm")
    assert assembly.add("llm", "a long") == ""
    assembly.end_attempt("llm")
    assert assembly.text() == "a long text"
    assert assembly.retried


def test_a_node_in_a_loop_repeats_its_text() -> None:
    assembly = TextAssembly()
    for _ in range(3):
        assert assembly.add("llm", "again ") == "again "
        assembly.end_attempt("llm")
    assembly.begin_retry("llm")
    assert assembly.add("llm", "again ") == "again "
    assert assembly.text() == "again " * 4


def test_a_retry_before_any_text() -> None:
    assembly = TextAssembly()
    assembly.begin_retry("llm")
    assert not assembly.retried
    assert assembly.add("llm", "text") == "text"


def test_nodes_are_retried_independently() -> None:
    assembly = TextAssembly()
    assembly.add("a", "one ")
    assembly.add("b", "two ")
    assembly.begin_retry("a")
    assert assembly.add("b", "two ") == "two "
    assert assembly.add("a", "one and") == "and"


def test_a_replacement_discards_the_earlier_text() -> None:
    assembly = TextAssembly()
    assembly.add("llm", "bad words")
    assembly.begin_retry("llm")
    assembly.restart("Preset.")
    assert assembly.add("llm", " More.") == " More."
    assert assembly.text() == "Preset. More."
    assembly.restart("")
    assert assembly.text() == ""
    assert assembly.any


def test_an_empty_replacement_is_no_text() -> None:
    assembly = TextAssembly()
    assembly.restart("")
    assert not assembly.any


# Agents of 1.16: the streamed text per step, the closing message, and its new part.
CLOSINGS: dict[str, tuple[list[list[str]], str, str]] = {
    "all of it was streamed": ([["Hel", "lo."]], "Hello.", ""),
    "nothing was streamed": ([], "Hello.", "Hello."),
    "its end was not streamed": ([["Hel"]], "Hello.", "lo."),
    "only the last step is repeated": ([["Let me look. "], ["It is ", "blue."]], "It is blue.", ""),
    "only the last step is repeated, its end was not streamed": (
        [["Let me look. "], ["It is "]],
        "It is blue.",
        "blue.",
    ),
    "all steps are repeated": ([["Let me look. "], ["It is blue."]], "Let me look. It is blue.", ""),
    "the last step streamed nothing": ([["Let me look. "], []], "It is blue.", "It is blue."),
    "the last step streamed nothing, all is repeated": ([["Let me look. "], []], "Let me look. Blue.", "Blue."),
    "the last step's text came before": ([["Hello."], []], "Hello.", ""),
    "its outer white space is missing": ([["\nHello.\n"]], "Hello.", ""),
    "it is empty": ([["Hello."]], "", ""),
}


@pytest.mark.parametrize(("steps", "closing", "new"), CLOSINGS.values(), ids=CLOSINGS)
def test_an_agents_closing_message(steps: list[list[str]], closing: str, new: str) -> None:
    assembly = TextAssembly()
    for step in steps:
        assembly.begin_agent_segment()
        for part in step:
            assembly.add("", part)
    assert assembly.missing_from_agent(closing) == new


def test_a_retry_that_repeats_more_than_is_missing() -> None:
    assembly = TextAssembly()
    assembly.add("llm", "abcdef")
    assembly.begin_retry("llm")
    assert assembly.add("llm", "abc") == ""
    assert assembly.add("llm", "dxxxxxx") is None
    assert assembly.text() == "abcdxxxxxx"


def test_only_some_closing_messages_are_compared() -> None:
    assembly = TextAssembly()
    assembly.add("", "Hello.")
    assert [assembly.missing_from_agent("Hello.") for _ in range(MAX_COMPARED_ANSWERS)] == [""] * MAX_COMPARED_ANSWERS
    assert assembly.missing_from_agent("Hello.") == "Hello."
