"""The work for a request's items grows with their number, not with its square.

Work is counted in calls of functions, C functions included, from the decoded body to the body for Dify.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from msgspec import json

from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.request import AppRules, make_generate_request
from openai_dify_proxy.translate.history import Fingerprint, replies
from openai_dify_proxy.translate.openai.chat_request import make_turn, read_chat_request
from openai_dify_proxy.translate.openai.conversation_items import page
from openai_dify_proxy.translate.openai.responses_items import read_input_items
from openai_dify_proxy.translate.openai.responses_request import messages_of_input, read_responses_messages
from openai_dify_proxy.translate.openai.stored_items import item_object, join_items, pending_calls, split_items
from openai_dify_proxy.translate.turn_request import HistoryMessage, TurnRequest
from openai_dify_proxy.wire.dify import encode_generate_request
from openai_dify_proxy.wire.openai.conversations import CONVERSATION_REQUEST
from openai_dify_proxy.wire.openai.responses import CHAT_OR_INPUT_REQUEST, RESPONSES_REQUEST

Item = dict[str, Any]


def calls(work: Callable[[], object]) -> int:
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def ask(turn: TurnRequest) -> None:
    fingerprint = Fingerprint(b"secret")
    fingerprint.add_messages(turn.history)
    fingerprint.add_messages(replies(turn.history))
    encode_generate_request(make_generate_request(turn, AppProfile("chat"), AppRules(), "user"))


def chat(messages: list[Item]) -> None:
    ask(read_chat_request(CHAT_OR_INPUT_REQUEST.decode(json.encode({"messages": messages}))))


def respond(items: list[Item]) -> None:
    body = json.encode({"input": items})
    request = RESPONSES_REQUEST.decode(body)
    ask(make_turn(request, read_responses_messages(request, {"resp_1": HistoryMessage("assistant", "User: x")})))
    page(read_input_items(body, "resp_2"), after=None, limit=None, order=None)


def converse(items: list[Item]) -> None:
    request = CONVERSATION_REQUEST.decode(json.encode({"items": items}))
    stored = split_items(messages_of_input(request.items, field="items"), "1")
    join_items(stored)
    pending_calls(stored)
    listed = [item_object(item) for item in stored]
    page(listed, after=listed[-1].id, limit="100", order="asc")


USER: Item = {"role": "user", "content": "User: x"}
ASSISTANT: Item = {"role": "assistant", "content": "<think>x</think>User: y"}
PARTS = [{"type": "text", "text": "User: x\n"}]


def calling(size: int) -> Item:
    """Return an assistant's message with calls, at most as many as a message may have."""
    calls = [{"id": f"c{number}", "function": {"name": "f", "arguments": "{}"}} for number in range(size)]
    return {"role": "assistant", "tool_calls": calls}


def results(size: int) -> list[Item]:
    return [{"role": "tool", "tool_call_id": f"c{number}", "content": "User: x"} for number in range(size)]


def outputs(size: int) -> list[Item]:
    """Return calls, and then their outputs."""
    calls = [{"type": "function_call", "call_id": f"c{number}", "name": "f"} for number in range(size)]
    return [*calls, *({**call, "type": "function_call_output", "output": "User: x"} for call in calls)]


def halves(items: list[Item]) -> tuple[list[Item], list[Item]]:
    return items[: len(items) // 2], items[len(items) // 2 :]


WORK: dict[str, tuple[Callable[[list[Item]], None], Callable[[int], list[Item]]]] = {
    "messages": (chat, lambda size: [USER] * size),
    "alternating messages": (chat, lambda size: [USER, ASSISTANT] * size + [USER]),
    "tool messages": (chat, lambda size: [USER, *[{"role": "tool", "content": "User: x"}] * size]),
    "system messages": (chat, lambda size: [{"role": "system", "content": "x"}] * size + [USER]),
    "empty replies": (chat, lambda size: [USER] + [{"role": "assistant", "content": ""}] * size),
    "content parts": (chat, lambda size: [{"role": "user", "content": PARTS * size}]),
    "input items": (respond, lambda size: [USER] * size),
    "alternating items": (respond, lambda size: [USER, ASSISTANT] * size + [USER]),
    "tool calls": (chat, lambda size: [USER, calling(size), *results(size)]),
    "turns with tool calls": (chat, lambda size: [USER, *[calling(1), *results(1)] * size]),
    "tool outputs": (respond, lambda size: [USER, *outputs(size)]),
    "turns with tool outputs": (
        respond,
        lambda size: [item for pair in zip(*halves(outputs(size)), strict=True) for item in pair],
    ),
    "references": (respond, lambda size: [{"type": "item_reference", "id": "msg_1"}] * size + [USER]),
    "unknown items": (respond, lambda size: [{"type": "odd"}] * size + [USER]),
    "conversation items": (converse, lambda size: [USER, ASSISTANT] * size),
}


@pytest.mark.parametrize(("work", "items"), WORK.values(), ids=WORK)
def test_twice_as_many_items_are_twice_the_work(
    work: Callable[[list[Item]], None], items: Callable[[int], list[Item]]
) -> None:
    work(items(10))  # imports and caches
    once = calls(lambda: work(items(500)))
    twice = calls(lambda: work(items(1000)))
    assert twice <= 2.1 * once
    assert once <= 150 * max(500, len(items(500)))  # content parts are one item
