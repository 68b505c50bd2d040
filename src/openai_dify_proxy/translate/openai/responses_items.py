"""The input of a response as the items that ``GET /v1/responses/{id}/input_items`` lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Raw, Struct, json

from openai_dify_proxy.translate.openai.sent_tools import qualified_name
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall
from openai_dify_proxy.wire.openai.responses import OutputItem, OutputRefusal, Response
from openai_dify_proxy.wire.reading import ANY_VALUE, UNREADABLE


class InputOnly(Struct):
    """The fields of a request that hold its input, read without a schema so that items stay as the client sent them."""

    input: str | list[Raw] | None = None
    messages: list[Raw] | None = None


INPUT_ONLY = json.Decoder(InputOnly)

CALL_TYPES = ("function_call", "custom_tool_call")
ITEM_PREFIXES = {
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}
"""The prefixes of ids by an item's type; ids of other items start with ``msg``."""

CONTENT_FIELDS = frozenset({"image_url", "video_url", "audio_url", "input_audio", "file", "file_data", "data", "url"})
"""The fields of parts that may hold the content of a file."""

STATUS_TYPES = ("message", *CALL_TYPES, "function_call_output", "custom_tool_call_output")


def read_input_items(body: bytes, response_id: str) -> list[dict[str, Any]]:
    """Return the items of a valid request body, each with an id, and with text as content parts.

    Skip items that hold values which msgspec cannot decode, such as 1e999: the turn did not need them.
    """
    fields = INPUT_ONLY.decode(body)
    items = fields.input if fields.input is not None else fields.messages or []
    name = response_id.removeprefix("resp_")
    decoded = [{"role": "user", "content": items}] if isinstance(items, str) else _decode(items)
    return [_item(item, f"{name}_in{number}") for number, item in enumerate(decoded)]


def body_without_files(body: bytes) -> bytes:
    """Return the input of a request body without the contents of its files, which are not stored. URLs and ids stay."""
    fields = INPUT_ONLY.decode(body)
    for items in (fields.input, fields.messages):
        if isinstance(items, list):
            items[:] = [Raw(json.encode(_without_contents(item))) for item in _decode(items)]
    return json.encode(fields)


def _without_contents(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item with null in place of contents, as OpenAI lists it unless ``include`` asks for them."""
    return {
        name: [_part_without_content(part) for part in value] if isinstance(value, list) else value
        for name, value in item.items()
    }


def _part_without_content(part: Any) -> Any:
    """Return a part without its content, which may be in an object in the part."""
    if not isinstance(part, dict):
        return part
    return {
        name: {inner: None if _is_content(inner, held) else held for inner, held in value.items()}
        if isinstance(value, dict)
        else None
        if _is_content(name, value)
        else value
        for name, value in part.items()
    }


def _is_content(name: str, value: Any) -> bool:
    if name not in CONTENT_FIELDS or not isinstance(value, str):
        return False
    return not value[:8].lower().startswith(("http://", "https://"))


def _decode(items: list[Raw]) -> Iterator[dict[str, Any]]:
    for item in items:
        try:
            yield ANY_VALUE.decode(item)
        except UNREADABLE:
            continue


def _item(item: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an item as the client sent it, with an id that ends with ``name`` unless it has one."""
    given = {key: value for key, value in item.items() if value is not None}
    kind = given.get("type", "message")
    complete = {"id": f"{ITEM_PREFIXES.get(kind, 'msg')}_{name}", "type": kind, **given}
    if kind in STATUS_TYPES:
        complete.setdefault("status", "completed")
    if kind == "message" and isinstance(complete.get("content"), str):
        part_type = "output_text" if complete.get("role") == "assistant" else "input_text"
        part = {"type": part_type, "text": complete["content"]}
        complete["content"] = [part | ({"annotations": []} if part_type == "output_text" else {})]
    return complete


def text_of_response(response: Response) -> str:
    """Return the assistant's whole text in a response object, including a refusal."""
    return "".join(
        part.refusal if isinstance(part, OutputRefusal) else part.text
        for item in response.output
        if isinstance(item.content, list)
        for part in item.content
    )


def reply_of_response(response: Response) -> HistoryMessage:
    """Return the assistant's message in a response object: its whole text and its calls."""
    calls = (_call_of_item(item) for item in response.output if item.type in CALL_TYPES)
    return HistoryMessage("assistant", text_of_response(response), tuple(calls))


def _call_of_item(item: OutputItem) -> ToolCall:
    custom = item.type == "custom_tool_call"
    arguments = item.input if custom else item.arguments
    name = qualified_name(item.namespace or None, item.name or "")
    return ToolCall(item.call_id or "", name, arguments or "", custom)
