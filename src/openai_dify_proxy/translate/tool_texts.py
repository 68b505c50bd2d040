"""Writes tool calls and tool results as text, as the instructions for the model show them.

A call is ``<tool_call>{"name": …, "arguments": …}</tool_call>``, a result ``<tool_result name="…">…</tool_result>``.
The text inside a block cannot end the block: its closing tags are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import DecodeError, json, structs

from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall

_CALL_END = re.compile(r"<(?=\s*+/\s*+tool_call)", re.IGNORECASE)
_RESULT_END = re.compile(r"<(?=\s*+/\s*+tool_result)", re.IGNORECASE)
_IN_ATTRIBUTE = {ord('"'): "'", ord("<"): "(", ord(">"): ")", ord("\n"): " ", ord("\r"): " "}

NO_CALLS: Mapping[str, str] = {}


def render_calls(calls: Iterable[ToolCall]) -> str:
    """Return the calls as blocks, one below the other."""
    return "\n".join(map(_render_call, calls))


def result_attributes(calls: Sequence[ToolCall]) -> dict[str, str]:
    """Return the attributes of the results of ``calls``, by call id.

    ``calls`` are those of one assistant's message. If there are several, a result has the number of its call, from 1.
    """
    numbered = len(calls) > 1
    return {
        call.id: f' name="{call.name.translate(_IN_ATTRIBUTE)}"' + (f' call="{number}"' if numbered else "")
        for number, call in enumerate(calls, 1)
    }


def render_result(message: HistoryMessage, attributes: Mapping[str, str]) -> str:
    """Return a tool's message as a block. The block of an unknown call has no name.

    ``attributes`` are those of the results of the assistant's message that it answers.
    """
    known = attributes.get(message.call_id or "", "")
    return f"<tool_result{known}>\n{_RESULT_END.sub('&lt;', message.text)}\n</tool_result>"


def rendered(message: HistoryMessage, attributes: Mapping[str, str] = NO_CALLS) -> str:
    """Return the text of a message with its calls, or its result with ``attributes``, as blocks."""
    if message.role == "tool":
        return render_result(message, attributes)
    if not message.calls:
        return message.text
    blocks = render_calls(message.calls)
    return f"{message.text}\n\n{blocks}" if message.text else blocks


def rendered_messages(messages: Iterable[HistoryMessage], calls: Sequence[ToolCall] = ()) -> tuple[HistoryMessage, ...]:
    """Return the messages with their calls and results as text.

    ``calls`` are the calls of the assistant's message before the first one. Roles and ids are unchanged.
    """
    result = []
    attributes = result_attributes(calls)
    for message in messages:
        result.append(structs.replace(message, text=rendered(message, attributes), calls=()))
        if message.role == "assistant":
            attributes = result_attributes(message.calls)
    return tuple(result)


def _render_call(call: ToolCall) -> str:
    name = json.encode(call.name).decode()
    if call.custom:
        return f'<tool_call>{{"name": {name}}}\n{_CALL_END.sub("&lt;", call.arguments)}\n</tool_call>'
    # "<" occurs only in the strings of JSON, so the escape changes no value.
    arguments = _CALL_END.sub(r"\\u003c", _as_json(call.arguments))
    return f'<tool_call>{{"name": {name}, "arguments": {arguments}}}</tool_call>'


def _as_json(arguments: str) -> str:
    """Return ``arguments``, or a JSON string of them if they are not JSON."""
    try:
        json.decode(arguments)
    except (DecodeError, RecursionError):
        return json.encode(arguments).decode() if arguments.strip() else "{}"
    return arguments
