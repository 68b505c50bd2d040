"""Turns whose output another run corrects: what Dify is asked, and what stops the repair."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from openai import APIError, APIStatusError, AsyncOpenAI

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoLog
from tests.api.conftest import Serve
from tests.api.raw_client import Client, until
from tests.api.servers import (
    END,
    LAST_CHUNK,
    SSE_HEAD,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    frame,
    http_answer,
    message_frame,
    raw_dify,
)
from tests.api.test_tool_kinds import WEATHER as FLAT_WEATHER
from tests.api.test_tool_kinds import respond
from tests.api.test_tools import WEATHER, question, streamed, whole
from tests.limits import PATIENCE

PARIS = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
WRONG = '<tool_call>{"name": "get_weather", "arguments": {"city": 1}}</tool_call>'
ANSWERS = pytest.mark.parametrize("ask", [whole, streamed])


def run_of(text: str) -> bytes:
    """Return the whole answer of a run, in one portion."""
    conversation = frame("message", answer=text, conversation_id="00000000-0000-4000-8000-000000000001")
    return SSE_HEAD + chunk(conversation, END) + LAST_CHUNK


async def read_all(stream: Any) -> None:
    async for _ in stream:
        pass


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


async def test_runs_of_a_turn_share_its_slot(limited: Serve, log: DemoLog) -> None:
    text = "CALL:types What does get_weather say about 'Quito'?"
    async with limited(1).client() as client:
        turns = [whole(client, "demo-chat", question(f"{number}. {text}"), tool_choice="required") for number in "12"]
        completions = await asyncio.gather(*turns)
    assert [completion.dify["tool_emulation"]["repairs"] for completion in completions] == [1, 1]
    assert len(log.runs) == 4


async def test_a_disconnect_during_a_repair_stops_its_run(raw_proxy: ProxyServer, raw_socket: socket.socket) -> None:
    client = Client(raw_proxy.port)

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        if len(dify.turns) == 1:
            writer.write(run_of(WRONG))
            return
        writer.write(SSE_HEAD + chunk(message_frame("Let me ")))
        await client.disconnect()
        await dify.stopped.wait()
        writer.write(chunk(END) + LAST_CHUNK)
        await writer.drain()

    async with raw_dify(answer, at=raw_socket) as dify:
        await client.ask("hi", "raw-chat", tools=[WEATHER], tool_choice="required")
        await asyncio.wait_for(dify.stopped.wait(), PATIENCE)
        assert len(dify.stops) == 1


async def test_a_shutdown_during_a_repair_stops_its_run(raw_socket: socket.socket) -> None:
    repairing = asyncio.Event()

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        if len(dify.turns) == 1:
            writer.write(run_of(WRONG))
            return
        writer.write(SSE_HEAD + chunk(message_frame("Let me ")))
        await writer.drain()
        repairing.set()
        await dify.stopped.wait()
        writer.write(chunk(END) + LAST_CHUNK)
        await writer.drain()

    async with raw_dify(answer, at=raw_socket) as dify:
        settings = Settings(apps={"raw": app_settings("raw", "app-raw", dify.url, mode="chat")}, shutdown_grace=0)
        proxy = ProxyServer(settings)
        await asyncio.to_thread(proxy.__enter__)
        async with proxy.client(max_retries=0) as client:
            request = asyncio.ensure_future(whole(client, "raw", question("Hi"), tool_choice="required"))
            await asyncio.wait_for(repairing.wait(), PATIENCE)
            await asyncio.to_thread(proxy.__exit__, None, None, None)
            with pytest.raises(APIStatusError) as failed:
                await request
        assert failed.value.status_code == 503
        assert len(dify.stops) == 1


async def test_background_response_is_repaired_and_continued(client: AsyncOpenAI) -> None:
    text = "CALL:types Ask get_weather about 'Riga'."
    options: dict[str, Any] = {"stream": False, "tools": [FLAT_WEATHER]}
    response = await respond(client, input=text, background=True, tool_choice="required", **options)
    while response.status in ("queued", "in_progress"):
        await asyncio.sleep(0.05)
        response = await client.responses.retrieve(response.id)
    (call,) = response.output
    assert call.arguments == '{"city": "Riga"}'
    assert response.dify["tool_emulation"]["repairs"] == 1
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "mild"}
    second = await respond(client, previous_response_id=response.id, input=[result], **options)
    assert second.output_text == "The result of get_weather is: mild"
    assert second.dify["conversation_id"] == response.dify["conversation_id"]


async def test_failure_behind_a_text_is_stored(raw_proxy: ProxyServer, raw_socket: socket.socket) -> None:
    model = Model(f"Hello. {WRONG}", WRONG)
    async with raw_dify(model.answer, at=raw_socket), raw_proxy.client() as client:
        stream: Any = await client.responses.create(
            model="raw-chat", input="Hi", tools=[FLAT_WEATHER], tool_choice="required", stream=True
        )
        created = await anext(stream)
        with pytest.raises(APIError):
            await read_all(stream)
        response = await client.responses.retrieve(created.response.id)
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.code == "server_error"


async def test_repair_that_breaks_off_is_stopped_before_the_answer(
    raw_proxy: ProxyServer, raw_socket: socket.socket
) -> None:
    """The conversation may be continued only once Dify runs nothing in it."""

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        if len(dify.turns) == 1:
            writer.write(run_of(WRONG))
        else:
            writer.write(SSE_HEAD + chunk(message_frame("Let me ")))  # and the connection ends
        await writer.drain()

    async with raw_dify(answer, at=raw_socket) as dify, raw_proxy.client() as client:
        completion = await whole(client, "raw-chat", question("Hi"))
        stopped_before = dify.stopped.is_set()
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"city": 1}'
    assert stopped_before
