"""The lists of items of conversations and responses: their limits, pages and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.openai.parameter_errors import (
    check_range,
    invalid_type,
    invalid_value,
    quotable,
    too_long,
)
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.translate.usage_estimates import characters_of
from openai_dify_proxy.wire.dify import MessageRow
from openai_dify_proxy.wire.openai.conversations import ItemList

ORDERS = ("asc", "desc")
DEFAULT_ITEMS = 20
MAX_ITEMS = 100
MAX_DIGITS = 18
MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512

MAX_ITEM_TEXT = 1024 * 1024
"""Characters of an item that a conversation is created with, or that is added to it."""

MAX_ITEMS_TEXT = 8 * 1024 * 1024
"""Characters of all items that a conversation stores."""


def check_items(messages: Sequence[HistoryMessage]) -> None:
    """Raise InvalidRequest if the items that a conversation stores have too much text."""
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
