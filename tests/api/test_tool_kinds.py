"""Custom tools, legacy functions, and the tools of the Responses API, with their results."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError

from openai_dify_proxy_demo import DemoLog

PARAMETERS: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}
FUNCTION: Any = {"name": "get_weather", "parameters": PARAMETERS}
PATCH: Any = {"type": "custom", "name": "apply_patch", "description": "Edit files."}
EDIT = "*** Begin Patch\n*** Add File: a.txt\n+<b>1 > 0</b>\n*** End Patch"


def question(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def respond(client: AsyncOpenAI, *, stream: bool, **request: Any) -> Any:
    """Return the response, put together by the official client if it is streamed."""
    if not stream:
        return await client.responses.create(model="demo-chat", **request)
    async with client.responses.stream(model="demo-chat", **request) as events:
        async for _ in events:
            pass
        return await events.get_final_response()


STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@STREAMED
async def test_responses_continue_with_the_result(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    first = await respond(client, stream=stream, input="Ask get_weather about 'Riga'.", tools=[WEATHER])
    (call,) = first.output
    assert (call.type, call.name, call.arguments) == ("function_call", "get_weather", '{"city": "Riga"}')
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "mild"}
    second = await respond(client, stream=stream, previous_response_id=first.id, input=[result], tools=[WEATHER])
    assert second.output_text == "The result of get_weather is: mild"
    assert second.dify["conversation_id"] == first.dify["conversation_id"]


@STREAMED
async def test_responses_continue_from_their_items(client: AsyncOpenAI, stream: bool) -> None:
    items: list[Any] = [{"role": "user", "content": "Ask get_weather about 'Riga' and 'Oslo'."}]
    first = await respond(client, stream=stream, input=items, tools=[WEATHER], store=False)
    (call,) = first.output
    items += [
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": [{"type": "input_text", "text": "mild"}]},
    ]
    second = await respond(client, stream=stream, input=items, tools=[WEATHER], store=False)
    assert second.output_text == "The result of get_weather is: mild"
    assert second.dify["conversation_id"] == first.dify["conversation_id"]


async def test_a_call_can_be_referenced(client: AsyncOpenAI) -> None:
    first = await respond(client, stream=False, input="Ask get_weather about 'Riga'.", tools=[WEATHER])
    (call,) = first.output
    items: list[Any] = [
        {"role": "user", "content": "Ask get_weather about 'Riga'."},
        {"type": "item_reference", "id": call.id},
        {"type": "function_call_output", "call_id": call.call_id, "output": "mild"},
    ]
    second = await respond(client, stream=False, input=items, tools=[WEATHER])
    assert second.output_text == "The result of get_weather is: mild"


async def test_background_response_calls_tools(client: AsyncOpenAI) -> None:
    response = await respond(
        client, stream=False, input="Ask get_weather about 'Riga'.", tools=[WEATHER], background=True
    )
    while response.status in ("queued", "in_progress"):
        await asyncio.sleep(0.05)
        response = await client.responses.retrieve(response.id)
    assert [item.type for item in response.output] == ["function_call"]


@STREAMED
async def test_custom_tool_of_responses(client: AsyncOpenAI, log: DemoLog, stream: bool) -> None:
    asked = f"Use apply_patch. INPUT<<{EDIT}>>"
    first = await respond(client, stream=stream, input=asked, tools=[PATCH])
    (call,) = first.output
    assert (call.type, call.name, call.input.strip()) == ("custom_tool_call", "apply_patch", EDIT)
    result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Done!"}
    second = await respond(client, stream=stream, previous_response_id=first.id, input=[result], tools=[PATCH])
    assert second.output_text == "The result of apply_patch is: Done!"
    assert second.dify["conversation_id"] == first.dify["conversation_id"]


async def test_custom_tool_of_chats(client: AsyncOpenAI) -> None:
    tool: Any = {"type": "custom", "custom": {"name": "apply_patch"}}
    messages = question(f"Use apply_patch. INPUT<<{EDIT}>>")
    first = await client.chat.completions.create(model="demo-chat", messages=messages, tools=[tool])
    (call,) = first.choices[0].message.tool_calls or []
    assert call.type == "custom"
    assert (call.custom.name, call.custom.input.strip()) == ("apply_patch", EDIT)
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Done!"},
    ]
    second = await client.chat.completions.create(model="demo-chat", messages=messages, tools=[tool])
    assert second.choices[0].message.content == "The result of apply_patch is: Done!"


async def test_legacy_functions(client: AsyncOpenAI) -> None:
    messages = question("Ask get_weather about 'Bonn'.")
    first = await client.chat.completions.create(model="demo-chat", messages=messages, functions=[FUNCTION])
    (choice,) = first.choices
    assert choice.finish_reason == "function_call"
    assert choice.message.tool_calls is None
    assert choice.message.function_call is not None
    assert json.loads(choice.message.function_call.arguments) == {"city": "Bonn"}
    messages += [
        {"role": "assistant", "content": None, "function_call": choice.message.function_call.model_dump()},
        {"role": "function", "name": "get_weather", "content": "grey"},
    ]
    second: Any = await client.chat.completions.create(model="demo-chat", messages=messages, functions=[FUNCTION])
    assert second.choices[0].message.content == "The result of get_weather is: grey"
    assert second.dify["conversation_id"] == first.model_dump()["dify"]["conversation_id"]


async def test_legacy_functions_in_a_stream(client: AsyncOpenAI) -> None:
    stream: Any = await client.chat.completions.create(
        model="demo-chat",
        messages=question("Ask get_weather about 'Bonn'."),
        functions=[FUNCTION],
        function_call={"name": "get_weather"},
        stream=True,
    )
    chunks = [chunk async for chunk in stream]
    calls = [chunk.choices[0].delta.function_call for chunk in chunks if chunk.choices[0].delta.function_call]
    assert calls[0].name == "get_weather"
    assert json.loads("".join(call.arguments or "" for call in calls)) == {"city": "Bonn"}
    assert chunks[-1].choices[0].finish_reason == "function_call"


async def test_several_calls_and_their_results(client: AsyncOpenAI, log: DemoLog) -> None:
    tool: Any = {"type": "function", "function": FUNCTION}
    messages = question("Compare get_weather(city=Rome) with get_weather(city=Bern).")
    first = await client.chat.completions.create(model="demo-chat", messages=messages, tools=[tool])
    calls: Any = first.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Rome", "Bern"]
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[1].id, "content": "cold"},
        {"role": "tool", "tool_call_id": calls[0].id, "content": "warm"},
    ]
    second = await client.chat.completions.create(model="demo-chat", messages=messages, tools=[tool])
    assert second.choices[0].finish_reason == "stop"
    assert 'name="get_weather" call="2">\ncold' in log.runs[-1].question
    assert 'name="get_weather" call="1">\nwarm' in log.runs[-1].question


async def test_call_without_a_result_is_an_error(client: AsyncOpenAI, log: DemoLog) -> None:
    tool: Any = {"type": "function", "function": FUNCTION}
    first = await client.chat.completions.create(
        model="demo-chat", messages=question("Ask get_weather about 'Kyiv'."), tools=[tool]
    )
    messages: list[Any] = [
        *question("Ask get_weather about 'Kyiv'."),
        first.choices[0].message.model_dump(exclude_none=True),
        *question("And?"),
    ]
    with pytest.raises(BadRequestError, match="tool_call_id"):
        await client.chat.completions.create(model="demo-chat", messages=messages, tools=[tool])
    assert len(log.runs) == 1


async def test_a_stream_with_calls_has_a_usage(client: AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": FUNCTION}
    stream = await client.chat.completions.create(
        model="demo-chat",
        messages=question("CALL:invented Ask get_weather about 'Kyiv'."),
        tools=[tool],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0
