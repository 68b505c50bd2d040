"""The items of a stored conversation: one text, call or result each, with an id that does not change.

``split_items`` gives ids to messages, and ``join_items`` turns items into messages again.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from openai_dify_proxy.translate.dify.instructions import without_instructions
from openai_dify_proxy.translate.think import without_thinking
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall
from openai_dify_proxy.wire.dify import MessageRow
from openai_dify_proxy.wire.openai.conversations import (
    CallItem,
    HistoryItem,
    ItemAnswer,
    ItemText,
    MessageItem,
    ResultItem,
)

_CUSTOM_RESULT = "ctco"


class StoredItem(HistoryMessage, frozen=True, omit_defaults=True):
    """A message with a text, one call, or the result of a call.

    Entries of older versions have no ``id``, and texts with calls: ``split_items`` completes them. ``failed`` means
    that the item belongs to a turn without a complete answer, so that no later turn sees it.
    """

    id: str = ""
    failed: bool = False


def split_items(messages: Sequence[HistoryMessage], base_id: str) -> list[StoredItem]:
    """Return messages as items: a text, and then each call. Items with an id keep it; new ids contain ``base_id``."""
    custom = {call.id for message in messages for call in message.calls if call.custom}
    items: list[StoredItem] = []
    for number, message in enumerate(messages):
        name = f"{base_id}_{number}"
        if isinstance(message, StoredItem) and message.id:
            items.append(message)
        elif message.call_id is not None:
            kind = _CUSTOM_RESULT if message.call_id in custom else "fco"
            items.append(StoredItem("tool", message.text, call_id=message.call_id, id=f"{kind}_{name}"))
        else:
            if message.text or not message.calls:
                items.append(StoredItem(message.role, message.text, id=f"msg_{name}"))
            for place, call in enumerate(message.calls):
                kind = "ctc" if call.custom else "fc"
                items.append(StoredItem(message.role, "", (call,), id=f"{kind}_{name}_{place}"))
    return items


def join_items(items: Sequence[StoredItem]) -> list[HistoryMessage]:
    """Return the messages that a later turn sees: calls belong to the assistant's message before them."""
    joined: list[tuple[StoredItem, list[ToolCall]]] = []
    for item in items:
        if item.failed:
            continue
        if item.calls and joined and joined[-1][0].role == "assistant":
            joined[-1][1].extend(item.calls)
        else:
            joined.append((item, [*item.calls]))
    return [HistoryMessage(item.role, item.text, tuple(calls), item.call_id) for item, calls in joined]


def items_of_messages(rows: Sequence[MessageRow], asked: Sequence[HistoryMessage] = ()) -> list[StoredItem]:
    """Return a question and an answer for each Dify message, oldest first; a lost answer is omitted.

    ``asked`` is the first question as the client sent it, where that is known.
    """
    items: list[StoredItem] = []
    for row in rows:
        row_id = row.id.replace("-", "")
        failed = row.failed or not row.answer
        if asked and row is rows[0]:
            items += [structs.replace(item, failed=failed) for item in split_items(asked, f"{row_id}_q")]
        else:
            items.append(StoredItem("user", without_instructions(row.query), id=f"msg_{row_id}_q", failed=failed))
        if row.answer:
            answer = without_thinking(row.answer)
            items.append(StoredItem("assistant", answer, id=f"msg_{row_id}_a", failed=failed))
    return items


def pending_calls(items: Sequence[StoredItem], before: Sequence[ToolCall] = ()) -> list[ToolCall]:
    """Return the calls whose results the next request has to send: of ``before`` and of the last answer in ``items``.

    ``before`` are the pending calls before ``items``.
    """
    calls = {call.id: call for call in before}
    for item in items:
        if item.call_id is not None:
            calls.pop(item.call_id, None)
        elif item.calls:
            calls |= {call.id: call for call in item.calls}
        elif item.role != "system":
            calls = {}
    return list(calls.values())


def item_object(item: StoredItem) -> HistoryItem:
    """Return the object that clients receive for an item."""
    if item.call_id is not None:
        return _result(item, item.call_id)
    if item.calls:
        return _call(item, item.calls[0])
    answer = item.role == "assistant"
    return MessageItem(
        id=item.id,
        role=item.role,
        content=[ItemAnswer(text=item.text) if answer else ItemText(text=item.text)],
        status="incomplete" if item.failed and answer else "completed",
    )


def _call(item: StoredItem, call: ToolCall) -> CallItem:
    if call.custom:
        return CallItem(id=item.id, type="custom_tool_call", call_id=call.id, input=call.arguments, name=call.name)
    return CallItem(id=item.id, type="function_call", arguments=call.arguments, call_id=call.id, name=call.name)


def _result(item: StoredItem, call_id: str) -> ResultItem:
    if item.id.startswith(f"{_CUSTOM_RESULT}_"):
        return ResultItem(id=item.id, type="custom_tool_call_output", call_id=call_id, output=item.text)
    return ResultItem(id=item.id, type="function_call_output", call_id=call_id, output=item.text)
