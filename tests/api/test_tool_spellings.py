"""Every way in which a model may write a call, over both APIs, streamed and whole: what the client gets."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from openai_dify_proxy_demo.tool_model import FAULTS

SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
QUESTION = "Ask get_weather for 3 days in 'Port Louis'."
ARGUMENTS = {"city": "Port Louis", "days": 3}

Outcome = tuple[str, list[Any]]
"""The text, and the arguments of the calls."""


async def chat(client: AsyncOpenAI, question: str, choice: str, *, stream: bool) -> Outcome:
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
    request: Any = {
        "model": "demo-chat",
        "messages": [{"role": "user", "content": question}],
        "tools": [tool],
        "tool_choice": choice,
    }
    if stream:
        state: Any = ChatCompletionStreamState()
        async for chunk in await client.chat.completions.create(**request, stream=True):
            state.handle_chunk(chunk)
        completion = state.get_final_completion()
    else:
        completion = await client.chat.completions.create(**request)
    message = completion.choices[0].message
    calls = message.tool_calls or []
    assert completion.choices[0].finish_reason == ("tool_calls" if calls else "stop")
    return message.content or "", [json.loads(call.function.arguments) for call in calls]


async def responses(client: AsyncOpenAI, question: str, choice: str, *, stream: bool) -> Outcome:
    tool: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
    request: Any = {"model": "demo-chat", "input": question, "tools": [tool], "tool_choice": choice}
    if stream:
        async with client.responses.stream(**request) as events:
            async for _ in events:
                pass
            response = await events.get_final_response()
    else:
        response = await client.responses.create(**request)
    calls = [item for item in response.output if item.type == "function_call"]
    return response.output_text, [json.loads(call.arguments) for call in calls]


Ask = Callable[..., Awaitable[Outcome]]

TEXT_BEFORE = {"prose"}
NO_CALLS = {"none", "think-text", "unknown"}
"""What is text unless a call is required."""
BROKEN = {"half"}
WRONG = {"types"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask", [chat, responses])
@pytest.mark.parametrize("split", ["", "SPLIT "], ids=["words", "characters"])
@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - NO_CALLS - BROKEN - WRONG))
async def test_call_is_found(client: AsyncOpenAI, fault: str, split: str, ask: Ask, stream: bool) -> None:
    text, calls = await ask(client, f"{split}CALL:{fault} {QUESTION}", "auto", stream=stream)
    assert calls == [ARGUMENTS]
    assert bool(text.strip()) is (fault in TEXT_BEFORE)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask", [chat, responses])
@pytest.mark.parametrize("fault", sorted(NO_CALLS))
async def test_other_text_is_text(client: AsyncOpenAI, fault: str, ask: Ask, stream: bool) -> None:
    text, calls = await ask(client, f"CALL:{fault} {QUESTION}", "auto", stream=stream)
    assert text
    assert calls == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask", [chat, responses])
@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_required_call_is_valid(client: AsyncOpenAI, fault: str, ask: Ask, stream: bool) -> None:
    _, calls = await ask(client, f"CALL:{fault} {QUESTION}", "required", stream=stream)
    assert calls == [ARGUMENTS]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask", [chat, responses])
@pytest.mark.parametrize("fault", sorted(NO_CALLS | BROKEN | WRONG))
async def test_required_call_that_stays_invalid_is_an_error(
    client: AsyncOpenAI, fault: str, ask: Ask, stream: bool
) -> None:
    with pytest.raises(APIError) as failed:
        await ask(client, f"STUBBORN CALL:{fault} {QUESTION}", "required", stream=stream)
    assert failed.value.code == "tool_call_invalid"
