"""Fingerprint conversation histories."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.translate.history import (
    KIND,
    SCOPE,
    TEXT,
    Fingerprint,
    KeyedHasher,
    has_content,
    keyed_hash,
    last_question,
    replies,
    with_files,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage, SentFile, ToolCall

SECRET = b"s" * 32


def user(text: str) -> HistoryMessage:
    return HistoryMessage("user", text)


def assistant(text: str) -> HistoryMessage:
    return HistoryMessage("assistant", text)


def calling(arguments: str, *, text: str = "", custom: bool = False, name: str = "f") -> HistoryMessage:
    return HistoryMessage("assistant", text, (ToolCall("call_1", name, arguments, custom),))


def looking(digest: str, text: str = "") -> HistoryMessage:
    return HistoryMessage("user", text, files=(SentFile("image", digest=digest),))


def result(text: str, call_id: str = "call_1") -> HistoryMessage:
    return HistoryMessage("tool", text, call_id=call_id)


def fingerprint(*messages: HistoryMessage, secret: bytes = SECRET, link: bytes = b"") -> bytes:
    one = Fingerprint(secret, link)
    one.add_messages(messages)
    return one.digest()


def hashed(data: bytes) -> bytes:
    """Hash the documented bytes of a fingerprint."""
    return hashlib.blake2b(data, key=SECRET, digest_size=24).digest()


def test_a_fingerprint_is_a_keyed_hash_of_version_link_and_fields() -> None:
    assert fingerprint(user("Hi"), assistant("ä!")) == hashed(b"\x02l0:r4:usert2:Hir9:assistantt3:\xc3\xa4!")
    assert fingerprint(user("Hi"), link=b"before") == hashed(b"\x02l6:beforer4:usert2:Hi")
    assert keyed_hash(SECRET, (SCOPE, "a"), (KIND, ""), link=b"l") == hashed(b"\x02l1:ls1:ak0:")
    assert len(fingerprint()) == 24


def test_hashes_of_fields_that_begin_alike_are_begun_once() -> None:
    hasher = KeyedHasher(SECRET, (KIND, "owned"), link=b"l")
    assert hasher.hash(SCOPE, "a") == hashed(b"\x02l1:lk5:owneds1:a")
    assert hasher.hash(SCOPE, "b") == hashed(b"\x02l1:lk5:owneds1:b")


def test_fields_and_messages_share_a_hash() -> None:
    one = Fingerprint(SECRET)
    one.add((KIND, "a"))
    one.add()
    one.add_messages([user("Hi")])
    assert one.digest() == hashed(b"\x02l0:k1:ar4:usert2:Hi")


def test_calls_and_results_are_nested_fields() -> None:
    call, other = b"d6:call_1n1:fa7:" + b'{"a":1}', b"d6:call_2n1:ga3:x y"
    both = HistoryMessage("assistant", "Hm.", (*calling('{"a": 1}').calls, ToolCall("call_2", "g", "x y", custom=True)))
    parts = len(call), call, len(other), other
    assert fingerprint(both) == hashed(b"\x02l0:r9:assistantt3:Hm.c%d:%bc%d:%b" % parts)
    assert fingerprint(result("3\r\n")) == hashed(b"\x02l0:r4:toolo13:d6:call_1t1:3")
    assert fingerprint(result("")) == hashed(b"\x02l0:r4:toolo12:d6:call_1t0:")


def test_the_hash_of_a_long_text_takes_its_place() -> None:
    text = "ä" * 1024
    digest = hashlib.sha256(text.encode()).digest()
    assert fingerprint(user(text)) == hashed(b"\x02l0:r4:userg32:" + digest)
    assert fingerprint(user(text[1:] + "a")) == hashed(b"\x02l0:r4:usert2047:" + text[1:].encode() + b"a")


def test_a_long_history_has_one_hash_over_all_its_fields() -> None:
    history = [user("a" * 50_000), *(assistant("b" * size) for size in range(1, 400))]
    assert fingerprint(*history) == hashed(b"\x02l0:" + encoded(folded(history)))


def test_a_fingerprint_without_additions_is_the_one_it_extends() -> None:
    assert fingerprint(link=b"before") == b"before"
    assert fingerprint(user(" \n"), link=b"before") == b"before"


def test_a_history_extends_step_by_step() -> None:
    whole = fingerprint(user("a"), assistant("b"), user("c"))
    growing = Fingerprint(SECRET)
    growing.add_messages([user("a")])
    assert growing.after([assistant("b"), user("c")]) == whole
    growing.add_messages([assistant("b")])
    assert growing.after([user("c")]) == whole
    assert growing.after([]) == growing.digest() == fingerprint(user("a"), assistant("b"))


def test_a_long_secret_is_no_error() -> None:
    assert fingerprint(user("a"), secret=b"s" * 5000) == fingerprint(user("a"), secret=b"s" * 64)


# Two histories with the same fingerprint.
SAME = {
    "line ends": ([user("a\r\nb\rc")], [user("a\nb\nc")]),
    "white space around a text": ([user("\n a\n"), assistant("b \t")], [user("a"), assistant("b")]),
    "messages without text": ([user("a"), assistant(" \n")], [user("a")]),
    "white space in arguments": ([calling('{"a": [1, 2]}')], [calling('{"a":[1,2]}\n')]),
    "the order of arguments": ([calling('{"a":1,"b":{"d":2,"c":3}}')], [calling('{"b":{"c":3,"d":2},"a":1}')]),
    "escapes in arguments": ([calling('{"a":"\\u00e9"}')], [calling('{"a":"é"}')]),
    "line ends of a result": ([result("a\r\nb\n")], [result("a\nb")]),
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
    "other arguments": ([calling('{"a":1}')], [calling('{"a":2}')]),
    "the order of a list": ([calling("[1,2]")], [calling("[2,1]")]),
    "another text beside a call": ([calling("{}", text="a")], [calling("{}", text="b")]),
    "another tool": ([calling("{}")], [calling("{}", name="g")]),
    "a call or its text": ([calling("{}")], [assistant("{}")]),
    "white space in free text": ([calling("a b", custom=True)], [calling("a  b", custom=True)]),
    "free text that is JSON": ([calling('{"a": 1}', custom=True)], [calling('{"a":1}', custom=True)]),
    "arguments that are not JSON": ([calling('{"a": 1')], [calling('{"a":1')]),
    "arguments beyond a double": ([calling("[1e999]")], [calling("[2e999]")]),
    "arguments with a lone surrogate": ([calling("\ud800")], [calling("\ud801")]),
    "an edited result": ([result("a")], [result("b")]),
    "the result of another call": ([result("a")], [result("a", "call_2")]),
    "a result without text": ([result("")], []),
    "another picture": ([looking("a")], [looking("b")]),
    "a picture or none": ([looking("a", text="Look.")], [user("Look.")]),
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


texts = st.text(st.sampled_from("at2:\n \r\u00e9\ud800"), max_size=8) | st.text(max_size=8)
messages = st.lists(st.builds(HistoryMessage, st.sampled_from(["user", "assistant", "tool"]), texts), max_size=5)


def folded(messages: list[HistoryMessage]) -> list[tuple[str, str]]:
    """Return roles and texts without the differences that do not count."""
    pairs = [(message.role, "\n".join(message.text.replace("\r\n", "\n").split("\r"))) for message in messages]
    return [(role, text.strip()) for role, text in pairs if text.strip()]


@given(messages, messages)
def test_only_histories_that_fold_to_the_same_have_the_same_fingerprint(
    one: list[HistoryMessage], other: list[HistoryMessage]
) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == (folded(one) == folded(other))


@given(messages, st.sampled_from(["", " ", "\n", "\t\r\n"]))
def test_outer_white_space_and_line_ends_do_not_count(messages: list[HistoryMessage], space: str) -> None:
    changed = [
        HistoryMessage(m.role, space + m.text.replace("\r", "\n").replace("\n", "\r\n") + space) for m in messages
    ]
    plain = [HistoryMessage(m.role, m.text.replace("\r", "\n")) for m in messages]
    assert fingerprint(*changed) == fingerprint(*plain)


fields = st.lists(st.tuples(st.sampled_from([KIND, SCOPE, TEXT]), texts), max_size=5)


@given(fields, fields, st.binary(max_size=4), st.binary(max_size=4))
def test_different_fields_or_links_have_different_hashes(
    one: list[tuple[bytes, str]], other: list[tuple[bytes, str]], link: bytes, other_link: bytes
) -> None:
    same = (one, link) == (other, other_link)
    assert (keyed_hash(SECRET, *one, link=link) == keyed_hash(SECRET, *other, link=other_link)) == same


@given(messages)
def test_the_hashed_bytes_of_a_history_can_be_read_back(messages: list[HistoryMessage]) -> None:
    """The bytes determine the messages, so two histories never share them."""
    data = encoded(folded(messages))
    assert parsed(data) == folded(messages)
    assert fingerprint(*messages) == hashed(b"\x02l0:" + data)


def encoded(messages: list[tuple[str, str]]) -> bytes:
    def field(tag: bytes, text: str) -> bytes:
        data = text.encode("utf-8", "surrogatepass")
        return tag + str(len(data)).encode() + b":" + data

    def content(text: str) -> bytes:
        data = text.encode("utf-8", "surrogatepass")
        return field(b"t", text) if len(data) < 2048 else b"g32:" + hashlib.sha256(data).digest()

    return b"".join(field(b"r", role) + content(text) for role, text in messages)


def parsed(data: bytes) -> list[tuple[str, str]]:
    contents = []
    while data:
        length, _, rest = data[1:].partition(b":")
        contents.append(rest[: int(length)].decode("utf-8", "surrogatepass"))
        data = rest[int(length) :]
    return list(zip(contents[::2], contents[1::2], strict=True))


def test_only_the_replies() -> None:
    assert replies([user("a"), assistant("b"), HistoryMessage("tool", "c"), assistant("d\n")]) == [
        assistant("b"),
        assistant("d\n"),
    ]
    assert replies([user("a"), calling("{}"), result("b")]) == [calling("{}"), result("b")]


def test_messages_without_text_do_not_count() -> None:
    assert not has_content([user(" \n"), assistant("")])
    assert has_content([user(" \n"), assistant(" a")])
    assert has_content([calling("{}")])
    assert has_content([result("")])


def test_the_last_question_with_text() -> None:
    assert last_question([user("a"), assistant("b"), user(" c "), user(" "), assistant("d")]) == "c"
    assert last_question([assistant("b")]) is None


def test_files_of_no_message_follow_the_messages() -> None:
    asked = (HistoryMessage("user", "Look."),)
    assert with_files(asked, ()) is asked
    files = (SentFile("image", digest="a"),)
    assert with_files(asked, files) == (*asked, HistoryMessage("user", "", files=files))
