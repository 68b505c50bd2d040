"""The input of a response as the items that ``GET /v1/responses/{id}/input_items`` lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Raw, Struct, json

from openai_dify_proxy.wire.openai.responses import Response
from openai_dify_proxy.wire.reading import ANY_VALUE, UNREADABLE


class InputOnly(Struct):
    """The fields of a request that hold its input, read without a schema so that items stay as the client sent them."""

    input: str | list[Raw] | None = None
    messages: list[Raw] | None = None


INPUT_ONLY = json.Decoder(InputOnly)


def read_input_items(body: bytes, response_id: str) -> list[dict[str, Any]]:
    """Return the items of a valid request body, each with an id, and with text as content parts.

    Skip items that hold values which msgspec cannot decode, such as 1e999: the turn did not need them.
    """
    fields = INPUT_ONLY.decode(body)
    items = fields.input if fields.input is not None else fields.messages or []
    name = response_id.removeprefix("resp_")
    decoded = [{"role": "user", "content": items}] if isinstance(items, str) else _decode(items)
    return [_item(item, f"msg_{name}_in{number}") for number, item in enumerate(decoded)]


def _decode(items: list[Raw]) -> Iterator[dict[str, Any]]:
    for item in items:
        try:
            yield ANY_VALUE.decode(item)
        except UNREADABLE:
            continue


def _item(item: dict[str, Any], item_id: str) -> dict[str, Any]:
    complete = {"id": item_id, "type": "message", **{key: value for key, value in item.items() if value is not None}}
    if complete["type"] == "message":
        complete.setdefault("status", "completed")
        if isinstance(complete.get("content"), str):
            kind = "output_text" if complete.get("role") == "assistant" else "input_text"
            part = {"type": kind, "text": complete["content"]}
            complete["content"] = [part | ({"annotations": []} if kind == "output_text" else {})]
    return complete


def text_of_response(response: Response) -> str:
    """Return the assistant's whole text in a response object."""
    return "".join(part.text for item in response.output if isinstance(item.content, list) for part in item.content)
