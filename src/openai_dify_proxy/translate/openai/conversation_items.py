"""The messages of a Dify conversation as items of an OpenAI conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.dify.instructions import without_instructions
from openai_dify_proxy.translate.openai.parameter_errors import (
    check_range,
    invalid_type,
    invalid_value,
    quotable,
    too_long,
)
from openai_dify_proxy.translate.think import without_thinking
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall
from openai_dify_proxy.translate.usage_estimates import characters_of
from openai_dify_proxy.wire.dify import MessageRow
from openai_dify_proxy.wire.openai.conversations import (
    CallItem,
    HistoryItem,
    ItemAnswer,
    ItemList,
    ItemText,
    MessageItem,
    ResultItem,
)

ORDERS = ("asc", "desc")
DEFAULT_ITEMS = 20
MAX_ITEMS = 100
MAX_DIGITS = 18
MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512

MAX_ITEM_TEXT = 1024 * 1024
"""Characters of an item that a conversation is created with."""

MAX_ITEMS_TEXT = 8 * 1024 * 1024
"""Characters of all items that a conversation is created with."""


def items_of_messages(rows: Sequence[MessageRow], asked: Sequence[HistoryMessage] = ()) -> list[HistoryItem]:
    """Return a question and an answer for each Dify message, oldest first; a lost answer is omitted.

    ``asked`` is the first question as the client sent it, where that is known.
    """
    items: list[HistoryItem] = []
    for row in rows:
        row_id = row.id.replace("-", "")
        if asked and row is rows[0]:
            items += items_of_history(asked, f"{row_id}_q")
        else:
            question = ItemText(text=without_instructions(row.query))
            items.append(MessageItem(id=f"msg_{row_id}_q", role="user", content=[question]))
        if row.answer:
            answer = ItemAnswer(text=without_thinking(row.answer))
            status: Any = "incomplete" if row.failed else "completed"
            items.append(MessageItem(id=f"msg_{row_id}_a", role="assistant", content=[answer], status=status))
    return items


def items_of_history(history: Sequence[HistoryMessage], base_id: str) -> list[HistoryItem]:
    """Return messages that were not sent to Dify yet, with ids from ``base_id``; calls follow their text."""
    custom = {call.id for message in history for call in message.calls if call.custom}
    items: list[HistoryItem] = []
    for number, message in enumerate(history):
        name = f"{base_id}_{number}"
        if message.call_id is not None:
            items.append(_result_item(name, message.call_id, message.text, custom=message.call_id in custom))
        elif message.text or not message.calls:
            answer = message.role == "assistant"
            content = [ItemAnswer(text=message.text) if answer else ItemText(text=message.text)]
            items.append(MessageItem(id=f"msg_{name}", role=message.role, content=content))
        items += [_call_item(f"{name}_{place}", call) for place, call in enumerate(message.calls)]
    return items


def _call_item(name: str, call: ToolCall) -> CallItem:
    if call.custom:
        return CallItem(
            id=f"ctc_{name}", type="custom_tool_call", call_id=call.id, input=call.arguments, name=call.name
        )
    return CallItem(id=f"fc_{name}", type="function_call", arguments=call.arguments, call_id=call.id, name=call.name)


def _result_item(name: str, call_id: str, output: str, *, custom: bool) -> ResultItem:
    if custom:
        return ResultItem(id=f"ctco_{name}", type="custom_tool_call_output", call_id=call_id, output=output)
    return ResultItem(id=f"fco_{name}", type="function_call_output", call_id=call_id, output=output)


def check_items(messages: Sequence[HistoryMessage]) -> None:
    """Raise InvalidRequest if the items of a new conversation have too much text to be stored."""
    sizes = [characters_of(message) for message in messages]
    if max(sizes, default=0) > MAX_ITEM_TEXT:
        raise InvalidRequest(
            f"An item in 'items' has more than {MAX_ITEM_TEXT} characters. Split it or shorten it.",
            param="items",
            code="string_above_max_length",
        )
    if sum(sizes) > MAX_ITEMS_TEXT:
        raise InvalidRequest(
            f"'items' has more than {MAX_ITEMS_TEXT} characters in all. Send fewer or shorter items.",
            param="items",
            code="string_above_max_length",
        )


def history_of_messages(rows: Sequence[MessageRow], asked: Sequence[HistoryMessage] = ()) -> list[HistoryMessage]:
    """Return the history that a new conversation takes over: the answered turns. ``asked`` is as in
    ``items_of_messages``.
    """
    history: list[HistoryMessage] = []
    for row in rows:
        if row.answer and not row.failed:
            history += asked if asked and row is rows[0] else [HistoryMessage("user", without_instructions(row.query))]
            history.append(HistoryMessage("assistant", without_thinking(row.answer)))
    return history


def messages_until(rows: Sequence[MessageRow], last: str | None) -> list[MessageRow]:
    """Return the messages up to the one with the id ``last``, or all of them if it is missing."""
    end = next((index for index, row in enumerate(rows, 1) if row.id == last), len(rows))
    return list(rows[:end])


def page(items: Sequence[Any], *, after: str | None, limit: str | None, order: str | None) -> ItemList:
    """Return one page of ``items``, which are structs or dicts with an id, oldest first.

    The page starts with the newest item unless ``order`` is ``asc``. Raises InvalidRequest for invalid parameters.
    """
    if order not in (None, *ORDERS):
        raise invalid_value("order", order, ORDERS)
    size = DEFAULT_ITEMS if limit is None else _page_size(limit)
    listed = list(items) if order == "asc" else list(reversed(items))
    ids = [_id_of(item) for item in listed]
    if after is not None and after not in ids:
        raise InvalidRequest(
            f"Item with id '{quotable(after)}' not found. Send the 'last_id' of the previous page.", param="after"
        )
    begin = 0 if after is None else ids.index(after) + 1
    shown = ids[begin : begin + size]
    return ItemList(
        data=listed[begin : begin + size],
        first_id=shown[0] if shown else "",
        last_id=shown[-1] if shown else "",
        has_more=begin + size < len(listed),
    )


def whole_number(text: str) -> int | None:
    """Return a number of a query string; None for anything else, and for more than ``MAX_DIGITS`` digits."""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


def _page_size(limit: str) -> int:
    if not limit.removeprefix("-").isdecimal():
        raise invalid_type("limit", ("int",), "str")
    size = int(limit[:MAX_DIGITS])
    check_range("limit", size, 1, MAX_ITEMS)
    return size


def _id_of(item: Any) -> str:
    item_id: str = item["id"] if isinstance(item, dict) else item.id
    return item_id


def check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Return ``metadata`` if it is within OpenAI's limits. Raises InvalidRequest."""
    if len(metadata) > MAX_METADATA:
        raise too_long("metadata", metadata, MAX_METADATA)
    for key, value in metadata.items():
        param = f"metadata.{quotable(key).removesuffix('…')}"
        if len(key) > MAX_METADATA_KEY:
            raise InvalidRequest(
                f"Invalid property name in 'metadata': '{quotable(key)}' is too long. Expected a string with maximum "
                f"length {MAX_METADATA_KEY}, but got a string with length {len(key)} instead.",
                param=param,
                code="property_name_above_max_length",
            )
        if len(value) > MAX_METADATA_VALUE:
            raise too_long(param, value, MAX_METADATA_VALUE)
    return metadata
