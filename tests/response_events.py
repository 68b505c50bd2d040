"""Parse Responses streams, strictly by their frames and with the official Python SDK."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from openai import OpenAI
from openai.types.responses import ParsedResponse, Response, ResponseStreamEvent
from pydantic import TypeAdapter

SDK_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
"""The SDK's own models of all events. The SDK itself does not validate streams against them."""


def events_of(data: bytes, *, first: int = 0) -> list[dict[str, Any]]:
    """Return the events of a complete stream. Its sequence numbers must start at ``first`` and have no gaps.

    Each frame must be exactly ``event: <type>``, ``data: {json}`` and an empty line, and match the SDK's models. A
    heartbeat repeats the previous number.
    """
    assert data.endswith(b"\n\n")
    frames = data.removesuffix(b"\n\n").split(b"\n\n")
    if frames[-1] == b"data: [DONE]":
        frames.pop()
    events = []
    number = first
    for frame in frames:
        name, separator, payload = frame.partition(b"\ndata: ")
        assert separator
        assert b"\n" not in payload
        event = json.loads(payload)
        assert name.decode() == f"event: {event['type']}"
        if event["type"] == "keepalive":
            assert event == {"type": "keepalive", "sequence_number": number - 1}
        else:
            assert event["sequence_number"] == number
            assert list(event)[:2] == ["type", "sequence_number"]
            number += 1
        if event["type"] not in ("keepalive", "error"):
            SDK_EVENT.validate_python(event)
        events.append(event)
    return events


def client_of(data: bytes) -> OpenAI:
    """Return an SDK client that receives ``data`` as every response."""

    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data)

    return OpenAI(
        api_key="unused",
        base_url="http://127.0.0.1/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )


def read_with_sdk(data: bytes) -> list[Any]:
    """Return the events that ``responses.create(stream=True)`` yields for ``data``. Raises openai.APIError."""
    with client_of(data) as client, client.responses.create(model="m", input="Hi", stream=True) as stream:
        return list(stream)


def gather_with_sdk(data: bytes) -> ParsedResponse[None] | Response | None:
    """Return the final response of the SDK's stream helper, which checks the order of items. Raises openai.APIError."""
    last = None
    with client_of(data) as client, client.responses.stream(model="m", input="Hi") as stream:
        for event in stream:
            if event.type in ("response.completed", "response.incomplete"):
                last = event.response
    return last
