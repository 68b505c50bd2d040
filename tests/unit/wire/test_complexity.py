from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from openai_dify_proxy.wire import complexity
from openai_dify_proxy.wire.complexity import MAX_DEPTH, MAX_VALUES, TooComplex, check_complexity

TOO_MANY = f"more than {MAX_VALUES} values"
TOO_DEEP = f"more than {MAX_DEPTH} levels of nested arrays and objects"


def complaint(document: bytes) -> str | None:
    try:
        check_complexity(document)
    except TooComplex as found:
        return str(found)
    return None


def nested(levels: int, inside: bytes = b"") -> bytes:
    return b"[" * levels + inside + b"]" * levels


DOCUMENTS: dict[str, tuple[bytes, str | None]] = {
    "nothing": (b"", None),
    "as many values as allowed": (b"[" + b"1," * (MAX_VALUES - 2) + b"1]", None),
    "one value more": (b"[" + b"1," * (MAX_VALUES - 1) + b"1]", TOO_MANY),
    "one value more, as members": (b"{" + b'"a":1,' * (MAX_VALUES - 1) + b'"a":1}', TOO_MANY),
    "empty objects": (b"[" + b"{}," * (MAX_VALUES // 2) + b"{}]", TOO_MANY),
    "as deep as allowed": (nested(MAX_DEPTH), None),
    "one level deeper": (nested(MAX_DEPTH + 1), TOO_DEEP),
    "deep and wide": (b"[" + b",".join([nested(MAX_DEPTH - 1, b"[],[]")] * 9) + b"]", TOO_DEEP),
    "wide and not deep": (b"[" + b",".join([nested(MAX_DEPTH - 1)] * 9) + b"]", None),
    "deep after much that is not": (b"[" + b"[[],{}]," * 90_000 + nested(MAX_DEPTH) + b"]", TOO_DEEP),
    "brackets and commas in a string": (b'["' + b"[{,]}" * MAX_VALUES + b'"]', None),
    "quotes in a string": (b'["' + rb"\"[\"," * MAX_VALUES + b'"]', None),
    "backslashes in a string": (b'["' + rb"\\" * 1001 + b'",' + b"[]," * (MAX_VALUES // 2) + b"[]]", TOO_MANY),
    "a string without an end": (b'["' + b"[," * MAX_VALUES, None),
}


@pytest.mark.parametrize(("document", "expected"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_documents(document: bytes, expected: str | None) -> None:
    assert complaint(document) == expected


def depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def count(value: object) -> int:
    """The values, with empty arrays and objects twice."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + (sum(map(count, value)) if value else 1) if isinstance(value, list) else 1


texts = st.text(alphabet='"\\[]{},:a\n\u2028é', max_size=5)
values = st.recursive(
    texts | st.none() | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(values, st.integers(1, 9), st.integers(0, 20), st.integers(0, 5))
def test_values_and_levels_are_counted_as_in_the_decoded_document(
    value: object, chunk: int, max_values: int, max_depth: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(complexity, "_CHUNK", chunk)
        patch.setattr(complexity, "_ROUNDS", chunk % 3)
        patch.setattr(complexity, "MAX_VALUES", max_values)
        patch.setattr(complexity, "MAX_DEPTH", max_depth)
        refused = complaint(json.encode(value)) is not None
    assert refused == (count(value) > max_values or depth(value) > max_depth)
