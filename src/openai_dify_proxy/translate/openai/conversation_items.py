"""What was said in a Dify conversation, as the items of an OpenAI one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.think import without_thinking
from openai_dify_proxy.translate.turn_request import HistoryMessage
from openai_dify_proxy.wire.dify import MessageRow
from openai_dify_proxy.wire.openai.conversations import ItemAnswer, ItemList, ItemText, MessageItem

DEFAULT_ITEMS = 20
MAX_ITEMS = 100
MAX_DIGITS = 18
MAX_METADATA = 16
MAX_METADATA_KEY = 64
MAX_METADATA_VALUE = 512


def items_of_messages(rows: Sequence[MessageRow], asked: Sequence[HistoryMessage] = ()) -> list[MessageItem]:
    """A question and an answer for each message of Dify's, oldest first; an answer that was lost is left out.

    ``asked`` is the first question as the client put it, where that is known.
    """
    items = []
    for row in rows:
        name = row.id.replace("-", "")
        if asked and row is rows[0]:
            items += items_of_history(asked, f"{name}_q")
        else:
            items.append(MessageItem(id=f"msg_{name}_q", role="user", content=[ItemText(text=row.query)]))
        if row.answer:
            answer = ItemAnswer(text=without_thinking(row.answer))
            status: Any = "incomplete" if row.failed else "completed"
            items.append(MessageItem(id=f"msg_{name}_a", role="assistant", content=[answer], status=status))
    return items


def items_of_history(history: Sequence[HistoryMessage], name: str) -> list[MessageItem]:
    """Messages that Dify has not been told yet; ``name`` is what their ids are made of."""
    return [
        MessageItem(
            id=f"msg_{name}_{number}",
            role=message.role,
            content=[ItemAnswer(text=message.text) if message.role == "assistant" else ItemText(text=message.text)],
        )
        for number, message in enumerate(history)
    ]


def history_of_messages(rows: Sequence[MessageRow], asked: Sequence[HistoryMessage] = ()) -> list[HistoryMessage]:
    """What a new conversation is told of an old one: the turns that were answered. ``asked`` as above."""
    history: list[HistoryMessage] = []
    for row in rows:
        if row.answer and not row.failed:
            history += asked if asked and row is rows[0] else [HistoryMessage("user", row.query)]
            history.append(HistoryMessage("assistant", without_thinking(row.answer)))
    return history


def messages_until(rows: Sequence[MessageRow], last: str | None) -> list[MessageRow]:
    """The messages up to the one with the id ``last``; all of them if it is not among them."""
    end = next((index for index, row in enumerate(rows, 1) if row.id == last), len(rows))
    return list(rows[:end])


def page(items: Sequence[Any], *, after: str | None, limit: str | None, order: str | None) -> ItemList:
    """One page of ``items``, structs or dicts with an id, oldest first; a page begins with the newest unless ``order``
    is ``asc``. Raises InvalidRequest for parameters that are none.
    """
    if order not in (None, "asc", "desc"):
        raise InvalidRequest("order must be asc or desc.", param="order")
    size = DEFAULT_ITEMS if limit is None else whole_number(limit)
    if size is None or not 1 <= size <= MAX_ITEMS:
        raise InvalidRequest(f"limit must be a number from 1 to {MAX_ITEMS}.", param="limit")
    listed = list(items) if order == "asc" else list(reversed(items))
    names = [_id_of(item) for item in listed]
    if after is not None and after not in names:
        raise InvalidRequest(f"There is no item '{after[:100]}' to go on after.", param="after")
    begin = 0 if after is None else names.index(after) + 1
    shown = names[begin : begin + size]
    return ItemList(
        data=listed[begin : begin + size],
        first_id=shown[0] if shown else None,
        last_id=shown[-1] if shown else None,
        has_more=begin + size < len(listed),
    )


def whole_number(text: str) -> int | None:
    """A number of a query; None for what is none, or too long to be meant."""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


def _id_of(item: Any) -> str:
    name: str = item["id"] if isinstance(item, dict) else item.id
    return name


def check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """OpenAI's limits. Raises InvalidRequest."""
    if len(metadata) > MAX_METADATA:
        raise InvalidRequest(f"metadata takes at most {MAX_METADATA} keys.", param="metadata")
    for key, value in metadata.items():
        if len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE:
            raise InvalidRequest(
                f"A key of metadata has at most {MAX_METADATA_KEY} characters and a value {MAX_METADATA_VALUE}.",
                param=f"metadata.{key[:MAX_METADATA_KEY]}",
            )
    return metadata
