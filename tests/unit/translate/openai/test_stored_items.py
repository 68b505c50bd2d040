"""The items of stored conversations, and those of Dify's messages."""

from __future__ import annotations

from typing import Any

from msgspec import json
from openai.types.conversations import ConversationItem
from pydantic import TypeAdapter

from openai_dify_proxy.translate.openai.stored_items import (
    StoredItem,
    item_object,
    items_of_messages,
    join_items,
    pending_calls,
    split_items,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.wire.dify import MESSAGE_PAGE, MessageRow
from tests.tool_events import PATCH, TIME, WEATHER

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


def plain(items: list[StoredItem]) -> Any:
    return json.decode(json.encode([item_object(item) for item in items]))


def test_each_dify_message_is_a_question_and_an_answer() -> None:
    items = plain(items_of_messages(ROWS))
    for item in items:
        SDK_ITEM.validate_python(item)
    assert items[:3] == [
        {
            "id": "msg_0b7a4e8c1c6f4b899a525d6f0d3c1a11_q",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "first"}],
        },
        {
            "id": "msg_0b7a4e8c1c6f4b899a525d6f0d3c1a11_a",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "one", "annotations": [], "logprobs": []}],
        },
        {
            "id": "msg_1b7a4e8c1c6f4b899a525d6f0d3c1a11_q",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "second"}],
        },
    ]
    assert [(item["role"], item["content"][0]["text"], item["status"]) for item in items[3:]] == [
        ("user", "third", "completed"),
        ("assistant", "half", "incomplete"),
        ("user", "fourth", "completed"),
        ("assistant", "four", "completed"),
    ]


def test_the_first_question_may_be_replaced_by_the_original() -> None:
    items = plain(items_of_messages(ROWS, ASKED))
    assert [(item["role"], item["content"][0]["text"]) for item in items[:4]] == [
        ("tool", "42"),
        ("user", "as it was put"),
        ("assistant", "one"),
        ("user", "second"),
    ]
    assert len({item["id"] for item in items}) == len(items)


def test_items_that_dify_has_not_received_yet() -> None:
    history = [HistoryMessage("system", "Be nice."), HistoryMessage("user", "hi"), HistoryMessage("assistant", "ho")]
    items = plain(split_items(history, "123"))
    for item in items:
        SDK_ITEM.validate_python(item)
    assert [(item["id"], item["role"], item["content"][0]) for item in items] == [
        ("msg_123_0", "system", {"type": "input_text", "text": "Be nice."}),
        ("msg_123_1", "user", {"type": "input_text", "text": "hi"}),
        ("msg_123_2", "assistant", {"type": "output_text", "text": "ho", "annotations": [], "logprobs": []}),
    ]


def test_calls_and_results_are_items() -> None:
    history = [
        HistoryMessage("assistant", "Hm.", (WEATHER, PATCH)),
        HistoryMessage("tool", "done", call_id=PATCH.id),
        HistoryMessage("tool", "20 °C", call_id=WEATHER.id),
        HistoryMessage("assistant", "", (TIME,)),
    ]
    items = plain(split_items(history, "123"))
    for item in items:
        SDK_ITEM.validate_python(item)
    assert [item["id"] for item in items] == [
        "msg_123_0",
        "fc_123_0_0",
        "ctc_123_0_1",
        "ctco_123_1",
        "fco_123_2",
        "fc_123_3_0",
    ]
    assert items[1:5] == [
        {
            "id": "fc_123_0_0",
            "type": "function_call",
            "status": "completed",
            "arguments": '{"city": "Paris"}',
            "call_id": "call_a",
            "name": "get_weather",
        },
        {
            "id": "ctc_123_0_1",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "call_c",
            "input": PATCH.arguments,
            "name": "apply_patch",
        },
        {
            "id": "ctco_123_1",
            "type": "custom_tool_call_output",
            "status": "completed",
            "call_id": "call_c",
            "output": "done",
        },
        {
            "id": "fco_123_2",
            "type": "function_call_output",
            "status": "completed",
            "call_id": "call_a",
            "output": "20 °C",
        },
    ]


def test_later_turns_see_the_answered_messages() -> None:
    assert join_items(items_of_messages(ROWS)) == [
        HistoryMessage("user", "first"),
        HistoryMessage("assistant", "one"),
        HistoryMessage("user", "fourth"),
        HistoryMessage("assistant", "four"),
    ]
    assert join_items(items_of_messages(ROWS, ASKED))[:3] == [*ASKED, HistoryMessage("assistant", "one")]
    assert join_items(items_of_messages([])) == []


def test_items_with_an_id_keep_it() -> None:
    first = split_items([HistoryMessage("user", "a"), HistoryMessage("assistant", "b", (WEATHER,))], "1")
    again = split_items([*first[1:], HistoryMessage("user", "c")], "2")
    assert [item.id for item in again] == ["msg_1_1", "fc_1_1_0", "msg_2_2"]


def test_items_are_joined_to_the_messages_that_they_came_from() -> None:
    history = [
        HistoryMessage("user", "a"),
        HistoryMessage("assistant", "Hm.", (WEATHER, PATCH)),
        HistoryMessage("tool", "20 °C", call_id=WEATHER.id),
        HistoryMessage("assistant", "", (TIME,)),
        HistoryMessage("tool", "12:30", call_id=TIME.id),
    ]
    assert join_items(split_items(history, "1")) == history
    assert join_items(split_items([HistoryMessage("user", "a"), HistoryMessage("assistant", "", (TIME,))], "1")) == [
        HistoryMessage("user", "a"),
        HistoryMessage("assistant", "", (TIME,)),
    ]


def test_calls_without_a_result_are_pending() -> None:
    calls = split_items([HistoryMessage("assistant", "Hm.", (WEATHER, TIME))], "1")
    result = StoredItem("tool", "20 °C", call_id=WEATHER.id)
    assert pending_calls([]) == []
    assert pending_calls(calls) == [WEATHER, TIME]
    assert pending_calls([*calls, result]) == [TIME]
    assert pending_calls([result], [WEATHER, TIME]) == [TIME]
    assert pending_calls([StoredItem("system", "Be nice.")], [TIME]) == [TIME]
    assert pending_calls([StoredItem("user", "Never mind.")], [TIME]) == []
