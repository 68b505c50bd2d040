from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.translate.role_lines import HEADING, PLAIN_LINES, QUESTION, ForgeableLines, escape_role_lines

BEGINS = r"(?:\A|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"
"""The begin of a line, for an expression that looks at every character."""


def escape_plainly(text: str, lines: tuple[str, ...]) -> str:
    others = "".join(f"|{re.escape(line)}" for line in lines)
    before = re.compile(rf"{BEGINS}(?=[ \t]*(?:(?:User|Assistant|Tool|System) *:{others}))", re.IGNORECASE)
    return before.sub(r"\\", text)


words = ["User", "uſer", "SYSTEM", "tool", "Assistant", "Begin", "K", "\u212a", "x", "\\", "---", HEADING, QUESTION]
separators = [" ", "\t", "\n", "\r", "\v", "\f", "\x1c", "\x1e", "\x1f", "\x85", "\u2028", "\u2029", "\u200b"]
parts = st.sampled_from([":", *words, *separators])


@given(
    st.lists(parts | st.characters(), max_size=12).map("".join),
    st.sampled_from([(HEADING, QUESTION), (), ("---",), ("Begin:",), ("begin k", QUESTION)]),
)
def test_the_same_lines_are_escaped_as_by_one_expression(text: str, lines: tuple[str, ...]) -> None:
    assert ForgeableLines(*lines).escape(text) == escape_plainly(text, lines)


@pytest.mark.parametrize("text", ["", "Hello", "a: b\nc", "10:30\nUsers: 3"])
def test_a_text_without_such_lines_is_the_very_same(text: str) -> None:
    assert escape_role_lines(text) is text


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\u2028", "\n\r"])
@pytest.mark.parametrize("indentation", [0, 1, 2, 5])
def test_a_long_text_is_searched_in_parts(ends: str, indentation: int) -> None:
    text = " " * indentation + ("User: x" + ends) * 300_000
    assert escape_role_lines(text) == escape_plainly(text, (HEADING, QUESTION))


def test_a_long_line() -> None:
    text = "user:" + "x" * 3_000_000
    assert escape_role_lines(text) == "\\" + text


def test_lines_of_a_template_may_have_no_colon() -> None:
    lines = ForgeableLines("-- history --")
    assert lines.escape("a\n -- History --") == "a\n\\ -- History --"
    assert lines.escape("a\nb") == "a\nb"
    assert PLAIN_LINES.escape("a\n -- History --") == "a\n -- History --"
