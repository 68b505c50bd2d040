"""Pages, limits and metadata of conversations."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import json
from openai.types.conversations import ConversationItem
from pydantic import TypeAdapter

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.conversation_items import (
    check_metadata,
    messages_until,
    page,
    whole_number,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.wire.dify import MESSAGE_PAGE, MessageRow

SDK_ITEM: TypeAdapter[Any] = TypeAdapter(ConversationItem)

# Messages of Dify 1.13 (GET /v1/messages), reduced to the fields that the proxy reads.
PAGE = b"""{"limit": 20, "has_more": false, "data": [
    {"id": "0b7a4e8c-1c6f-4b89-9a52-5d6f0d3c1a11", "query": "first", "answer": "<think>Hm.</think>one",
     "status": "normal", "created_at": 1763000000, "error": null},
    {"id": "1b7a4e8c-1c6f-4b89-9a52-5d6f0d3c1a11", "query": "second", "answer": "", "status": "error",
     "created_at": 1763000010, "error": "rate"},
    {"id": "2b7a4e8c-1c6f-4b89-9a52-5d6f0d3c1a11", "query": "third", "answer": "half", "status": "error",
     "created_at": 1763000020, "error": "cut"},
    {"id": "3b7a4e8c-1c6f-4b89-9a52-5d6f0d3c1a11", "query": "fourth", "answer": "four", "status": "normal",
     "created_at": 1763000030, "error": null}
]}"""
ROWS: list[MessageRow] = MESSAGE_PAGE.decode(PAGE).data
ASKED = [HistoryMessage("tool", "42"), HistoryMessage("user", "as it was put")]


@pytest.mark.parametrize(
    ("last", "count"), [(ROWS[0].id, 1), (ROWS[2].id, 3), (ROWS[3].id, 4), ("unknown", 4), (None, 4)]
)
def test_messages_up_to_the_last_answered_one(last: str | None, count: int) -> None:
    assert messages_until(ROWS, last) == ROWS[:count]


# Pages

NUMBERED = [{"id": str(number)} for number in range(45)]


@pytest.mark.parametrize(
    ("query", "shown", "more"),
    [
        ({}, range(44, 24, -1), True),
        ({"limit": "100"}, range(44, -1, -1), False),
        ({"limit": "45"}, range(44, -1, -1), False),
        ({"limit": "44"}, range(44, 0, -1), True),
        ({"order": "desc", "after": "25"}, range(24, 4, -1), True),
        ({"order": "desc", "after": "20"}, range(19, -1, -1), False),
        ({"order": "asc"}, range(20), True),
        ({"order": "asc", "after": "19", "limit": "1"}, range(20, 21), True),
        ({"order": "asc", "after": "24"}, range(25, 45), False),
        ({"order": "asc", "after": "44"}, range(0), False),
    ],
)
def test_pages(query: dict[str, str], shown: range, more: bool) -> None:
    listed = page(NUMBERED, after=query.get("after"), limit=query.get("limit"), order=query.get("order"))
    names = [str(number) for number in shown]
    assert [item["id"] for item in listed.data] == names
    assert listed.has_more is more
    assert (listed.first_id, listed.last_id) == ((names[0], names[-1]) if names else ("", ""))


def test_no_items_are_an_empty_page() -> None:
    listed = page([], after=None, limit=None, order=None)
    assert json.decode(json.encode(listed)) == {
        "object": "list",
        "data": [],
        "first_id": "",
        "last_id": "",
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"order": "up"}, "order"),
        ({"order": ""}, "order"),
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "\u00b2"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"after": "45"}, "after"),
        ({"after": ""}, "after"),
    ],
)
def test_invalid_parameters(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        page(NUMBERED, after=query.get("after"), limit=query.get("limit"), order=query.get("order"))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("0", "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead."),
        ("-1", "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got -1 instead."),
        ("101", "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead."),
        ("many", "Invalid type for 'limit': expected an integer, got a string."),
    ],
)
def test_invalid_limits_are_rejected_in_openais_words(limit: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        page(NUMBERED, after=None, limit=limit, order=None)
    assert refused.value.message == message


# Metadata


def test_metadata_within_openais_limits() -> None:
    largest = {f"{number:064}": "v" * 512 for number in range(16)}
    assert check_metadata(largest) == largest
    assert check_metadata({}) == {}


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({str(number): "" for number in range(17)}, "metadata"),
        ({"k" * 65: "v"}, f"metadata.{'k' * 64}"),
        ({"good": "v", "bad": "v" * 513}, "metadata.bad"),
    ],
)
def test_metadata_beyond_them(metadata: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_metadata(metadata)
    assert refused.value.param == param


# Integers in queries


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("12", 12), ("9" * 18, 10**18 - 1), ("9" * 19, None), ("-1", None), ("", None)]
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number
