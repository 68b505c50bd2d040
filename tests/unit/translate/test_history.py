"""Fingerprint conversation histories."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.translate.history import extend_fingerprint, last_question, message_parts, reply_parts
from openai_dify_proxy.translate.turn_request import HistoryMessage

SECRET = b"s" * 32


def user(text: str) -> HistoryMessage:
    return HistoryMessage("user", text)


def assistant(text: str) -> HistoryMessage:
    return HistoryMessage("assistant", text)


def fingerprint(*messages: HistoryMessage, secret: bytes = SECRET, link: bytes = b"") -> bytes:
    return extend_fingerprint(secret, message_parts(messages), link)


def test_a_link_is_the_hmac_of_the_one_before_the_role_the_length_and_the_content() -> None:
    first = hmac.new(SECRET, b"user\x002\x00Hi", hashlib.sha256).digest()
    second = hmac.new(SECRET, first + b"assistant\x003\x00\xc3\xa4!", hashlib.sha256).digest()
    assert fingerprint(user("Hi"), assistant("ä!")) == second


def test_a_chain_continues_from_any_link() -> None:
    whole = fingerprint(user("a"), assistant("b"), user("c"))
    assert fingerprint(assistant("b"), user("c"), link=fingerprint(user("a"))) == whole


# Two histories with the same fingerprint.
SAME = {
    "line ends": ([user("a\r\nb\rc")], [user("a\nb\nc")]),
    "white space around a text": ([user("\n a\n"), assistant("b \t")], [user("a"), assistant("b")]),
    "messages without text": ([user("a"), assistant(" \n")], [user("a")]),
}

# Two histories with different fingerprints.
DIFFERENT = {
    "another text": ([user("a")], [user("b")]),
    "another role": ([user("a")], [assistant("a")]),
    "another order": ([user("a"), assistant("b")], [assistant("b"), user("a")]),
    "indentation": ([user("if x:\n  y")], [user("if x:\n    y")]),
    "white space within": ([user("a b")], [user("a  b")]),
    "an empty line": ([user("a\nb")], [user("a\n\nb")]),
    "one message or two": ([user("a\nb")], [user("a"), user("b")]),
    "text that looks like a separate message": ([user("a\x00b")], [user("a"), user("b")]),
    "one more": ([user("a")], [user("a"), assistant("b")]),
    "another case": ([user("a")], [user("A")]),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_accidental_changes_by_clients_are_ignored(one: list[HistoryMessage], other: list[HistoryMessage]) -> None:
    assert fingerprint(*one) == fingerprint(*other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_other_changes_count(one: list[HistoryMessage], other: list[HistoryMessage]) -> None:
    assert fingerprint(*one) != fingerprint(*other)


def test_another_secret_makes_another_fingerprint() -> None:
    assert fingerprint(user("a")) != fingerprint(user("a"), secret=b"t" * 32)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.text(max_size=8)), max_size=5), st.data())
def test_only_equal_parts_make_equal_chains(parts: list[tuple[str, str]], data: st.DataObject) -> None:
    other = data.draw(
        st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.text(max_size=8)), max_size=5)
    )
    assert (extend_fingerprint(SECRET, parts) == extend_fingerprint(SECRET, other)) == (parts == other)


def test_only_the_replies() -> None:
    assert reply_parts([user("a"), assistant("b"), HistoryMessage("tool", "c"), assistant("d\n")]) == [
        ("assistant", "b"),
        ("assistant", "d"),
    ]


def test_the_last_question_with_text() -> None:
    assert last_question([user("a"), assistant("b"), user(" c "), user(" "), assistant("d")]) == "c"
    assert last_question([assistant("b")]) is None
