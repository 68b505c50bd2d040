"""Reads a Responses stream as clients do: strictly by its frames, and by the official Python SDK."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from openai import OpenAI
from openai.types.responses import ParsedResponse, Response, ResponseStreamEvent
from pydantic import TypeAdapter

SDK_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
"""The SDK's own description of every event; the SDK itself does not hold streams to it."""


def events_of(data: bytes, *, first: int = 0) -> list[dict[str, Any]]:
    """The events of a stream that ended well or failed, and whose numbers run from ``first`` without gaps.

    Whatever is not exactly ``event: <type>``, ``data: {json}`` and an empty line fails, and so does what the SDK does
    not describe. A heartbeat repeats a number.
    """
    assert data.endswith(b"\n\n")
    frames = data.removesuffix(b"\n\n").split(b"\n\n")
    if frames[-1] == b"data: [DONE]":
        frames.pop()
    found = []
    number = first
    for frame in frames:
        event, separator, payload = frame.partition(b"\ndata: ")
        assert separator
        assert b"\n" not in payload
        told = json.loads(payload)
        assert event.decode() == f"event: {told['type']}"
        if told["type"] == "keepalive":
            assert told == {"type": "keepalive", "sequence_number": number - 1}
        else:
            assert told["sequence_number"] == number
            assert list(told)[:2] == ["type", "sequence_number"]
            number += 1
        if told["type"] not in ("keepalive", "error"):
            SDK_EVENT.validate_python(told)
        found.append(told)
    return found


def client_of(data: bytes) -> OpenAI:
    """The SDK, in whose ears every answer is ``data``."""

    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data)

    return OpenAI(
        api_key="unused",
        base_url="http://127.0.0.1/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )


def read_with_sdk(data: bytes) -> list[Any]:
    """What a program gets that iterates over ``responses.create(stream=True)``. Raises openai.APIError."""
    with client_of(data) as client, client.responses.create(model="m", input="Hi", stream=True) as stream:
        return list(stream)


def gather_with_sdk(data: bytes) -> ParsedResponse[None] | Response | None:
    """The last response that the SDK's helper gives, which checks items and their order. Raises openai.APIError."""
    last = None
    with client_of(data) as client, client.responses.stream(model="m", input="Hi") as stream:
        for event in stream:
            if event.type in ("response.completed", "response.incomplete"):
                last = event.response
    return last
