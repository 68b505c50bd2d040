"""The input of a response as the items that ``GET /v1/responses/{id}/input_items`` lists."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, json

from openai_dify_proxy.wire.openai.responses import RESPONSE


class InputOnly(Struct):
    """What is read of a request's body to keep its input as it was sent."""

    input: Any = None
    messages: list[Any] | None = None


INPUT_ONLY = json.Decoder(InputOnly)


def read_input_items(body: bytes, response_id: str) -> list[dict[str, Any]]:
    """The items of a request's body, which has been read without fault before: each with an id, texts as parts."""
    given = INPUT_ONLY.decode(body)
    items = given.input if given.input is not None else given.messages or []
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    name = response_id.removeprefix("resp_")
    return [_item(item, f"msg_{name}_in{number}") for number, item in enumerate(items)]


def _item(item: dict[str, Any], name: str) -> dict[str, Any]:
    whole = {"id": name, "type": "message", **{key: value for key, value in item.items() if value is not None}}
    if whole["type"] == "message":
        whole.setdefault("status", "completed")
        if isinstance(whole.get("content"), str):
            kind = "output_text" if whole.get("role") == "assistant" else "input_text"
            part = {"type": kind, "text": whole["content"]}
            whole["content"] = [part | ({"annotations": []} if kind == "output_text" else {})]
    return whole


def text_of_response(response: bytes) -> str:
    """All that the assistant said in a response object."""
    output = RESPONSE.decode(response).output
    return "".join(part.text for item in output if isinstance(item.content, list) for part in item.content)
