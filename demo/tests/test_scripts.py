"""Keywords of messages and prompts: faults only on request, limits, and the pace of long answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy_demo import DEMO_PACE, DIALECTS
from openai_dify_proxy_demo.replicate.script import FAULTS, KEYWORDS, read_prompt
from openai_dify_proxy_demo.script import read_script

DIFY_FAULTS = (
    *("CUT", "EOF", "SILENCE", "MIDSILENCE", "PINGS", "GARBAGE", "BADUTF8"),
    *("OVERSIZE:1000", "QUEUE:5", "HEADERS:5"),
)
WORDS = st.lists(st.text(max_size=40) | st.sampled_from(["word ", "THINK ", "RECALL ", "CJK "]), max_size=60)
LONG_TEXTS = st.builds(lambda words, times: "".join(words) * times, WORDS, st.integers(1, 40))


@pytest.mark.parametrize("word", DIFY_FAULTS)
def test_fault_keyword_is_an_ordinary_word_by_default(word: str) -> None:
    question = f"What does {word} mean?"
    assert read_script(question, question) == read_script("", question)
    assert read_script(question, question, faults=True) != read_script("", question)


@pytest.mark.parametrize("word", FAULTS)
def test_fault_keyword_of_replicate_is_an_ordinary_word_by_default(word: str) -> None:
    assert not read_prompt(f"a fox {word}:2").words
    assert read_prompt(f"a fox {word}:2", faults=True).words == {word: "2"}


@pytest.mark.parametrize("word", KEYWORDS)
def test_other_keywords_of_replicate_are_always_commands(word: str) -> None:
    assert read_prompt(f"a fox {word}:2").words == {word: "2"}


@given(LONG_TEXTS)
def test_every_answer_takes_at_most_three_seconds(text: str) -> None:
    naming = max(dialect.naming_delay for dialect in DIALECTS.values()) * DEMO_PACE.naming
    for question in (text, f"THINK {text}", f"SAY<<{text}>>"):
        script = read_script(question, f"You wrote: {question}", recalled=text)
        assert script.delay is None
        assert naming + len(script.pieces_with_thought()) * DEMO_PACE.token <= 3
        assert "".join(script.pieces) == script.answer


@given(LONG_TEXTS)
def test_the_answer_is_the_text_itself(text: str) -> None:
    assert read_script("hello", text).answer == text


def test_short_answer_is_streamed_word_by_word() -> None:
    assert read_script("hello", "one two  three\n").pieces == ("one", " two", "  three", "\n")


@pytest.mark.parametrize("length", [0, 1, 200, 12_345, 100_000])
def test_long_answer_has_the_requested_length(length: int) -> None:
    script = read_script(f"LONG:{length}", "")
    assert len(script.answer) == length
    assert len(script.pieces) * DEMO_PACE.token <= 3


def test_requested_lengths_and_delays_are_bounded() -> None:
    assert len(read_script("LONG:999999999", "").answer) == 100_000
    for question in ("SLOW:999999999x1", "SLOW:10x999999999", "SLOW:0x999999999", "SLOW:5x999999 SAY<<one two>>"):
        script = read_script(question, "")
        assert script.delay is not None
        assert len(script.pieces) <= 1000
        assert len(script.pieces) * script.delay <= 120
    assert read_script("OVERSIZE:999999999", "", faults=True).oversize == 50_000_000
    assert read_prompt("COLD:999999 SLOW:999999").seconds("SLOW", 0) == 120
