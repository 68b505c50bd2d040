"""Turns whose output another run corrects: what Dify is asked, and what stops the repair."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI

from openai_dify_proxy_demo import DemoLog
from tests.api.raw_client import Client, until
from tests.api.servers import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    chunk,
    frame,
    http_answer,
    message_frame,
    raw_dify,
)
from tests.api.test_tools import WEATHER, question, streamed, whole

PARIS = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
WRONG = '<tool_call>{"name": "get_weather", "arguments": {"city": 1}}</tool_call>'
ANSWERS = pytest.mark.parametrize("ask", [whole, streamed])


def run_of(text: str) -> bytes:
    """Return the whole answer of a run, in one portion."""
    conversation = frame("message", answer=text, conversation_id="00000000-0000-4000-8000-000000000001")
    return SSE_HEAD + chunk(conversation, END) + LAST_CHUNK


class Model:
    """Answers the runs one after the other, with ``texts``; None rejects the run."""

    def __init__(self, *texts: str | None) -> None:
        self.texts = [*texts]
        self.questions: list[dict[str, Any]] = []

    async def answer(self, request: RawRequest, writer: asyncio.StreamWriter) -> None:
        self.questions.append(request.body)
        text = self.texts.pop(0)
        busy = b'{"code": "rate_limit_error", "message": "Too many requests", "status": 429}'
        writer.write(http_answer(429, busy) if text is None else run_of(text))
        await writer.drain()


@ANSWERS
async def test_stop_sequence_ends_a_turn_with_an_invalid_call(
    raw_proxy: ProxyServer, raw_socket: socket.socket, ask: Any
) -> None:
    model = Model(f"Hello.\nObservation: fake {WRONG}")
    async with raw_dify(model.answer, at=raw_socket), raw_proxy.client() as client:
        options: dict[str, Any] = {"stop": ["Observation:"], "tool_choice": "required"}
        completion = await ask(client, "raw-chat", question("Hi"), **options)
    assert completion.choices[0].message.content == "Hello.\n"
    assert completion.choices[0].finish_reason == "stop"
    assert len(model.questions) == 1


@ANSWERS
async def test_text_before_an_invalid_call_is_part_of_the_answer(
    raw_proxy: ProxyServer, raw_socket: socket.socket, ask: Any
) -> None:
    model = Model(f"Hello. {WRONG}", PARIS)
    async with raw_dify(model.answer, at=raw_socket), raw_proxy.client() as client:
        completion = await ask(client, "raw-chat", question("Hi"), stop=["Observation:"], tool_choice="required")
    assert completion.choices[0].message.content == "Hello. "
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"city": "Paris"}'
    assert model.questions[1]["conversation_id"] == "00000000-0000-4000-8000-000000000001"


@ANSWERS
async def test_rejected_repair_leaves_an_invalid_call(
    raw_proxy: ProxyServer, raw_socket: socket.socket, ask: Any
) -> None:
    """Dify's limit is no reason to fail with its error: the output is invalid."""
    model = Model(WRONG, None)
    async with raw_dify(model.answer, at=raw_socket), raw_proxy.client() as client:
        with pytest.raises(APIStatusError) as failed:
            await ask(client, "raw-chat", question("Hi"), tool_choice="required")
    assert (failed.value.status_code, failed.value.code) == (502, "tool_call_invalid")


async def test_rejected_repair_of_another_call_delivers_it(raw_proxy: ProxyServer, raw_socket: socket.socket) -> None:
    model = Model(WRONG, None)
    async with raw_dify(model.answer, at=raw_socket), raw_proxy.client() as client:
        completion = await whole(client, "raw-chat", question("Hi"))
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"city": 1}'


@pytest.mark.parametrize("stream", [False, True])
async def test_repair_is_not_asked_for_a_client_that_has_gone(
    raw_proxy: ProxyServer, raw_socket: socket.socket, stream: bool
) -> None:
    client = Client(raw_proxy.port)

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + chunk(message_frame(f"{WRONG} It is sunny.")))
        await dify.stopped.wait()  # before the repair
        await client.disconnect()
        writer.write(chunk(END) + LAST_CHUNK)
        await writer.drain()

    async with raw_dify(answer, at=raw_socket) as dify:
        await client.ask("hi", "raw-chat", stream=stream, tools=[WEATHER], tool_choice="required")
        await until(lambda: bool(dify.stops))
        # A further turn shows that the proxy has gone on.
        async with raw_proxy.client() as other:
            dify.answer = Model(PARIS).answer
            await whole(other, "raw-chat", question("Hi"))
        assert len(dify.turns) == 2


async def test_repair_keeps_the_system_message_in_its_input(client: AsyncOpenAI, log: DemoLog) -> None:
    text = "CALL:types What does get_weather say about 'Quito'?"
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, *question(text)]
    await whole(client, "demo-advanced-chat", messages, tool_choice="required")
    first, second = log.runs
    assert "Be brief." in json.dumps([first.question, dict(first.inputs)])
    assert "Be brief." in json.dumps([second.question, dict(second.inputs)])


async def test_repair_of_a_chatflow_repeats_the_question(client: AsyncOpenAI, log: DemoLog) -> None:
    """Its model may have no memory, which the first turn does not show."""
    text = "CALL:types What does get_weather say about 'Quito'?"
    completion = await whole(client, "demo-advanced-chat", question(text), tool_choice="required")
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"city": "Quito"}'
    first, second = log.runs
    assert text in second.question
    assert second.conversation_id == first.conversation_id
