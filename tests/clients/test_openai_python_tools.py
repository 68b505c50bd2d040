"""The official Python client's helpers for tools and types: `.parse()`, `.stream()` and the tool runners."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from openai import AsyncOpenAI, pydantic_function_tool, pydantic_responses_function_tool
from openai.lib.responses_tool_runner import AsyncRegisteredFunction, AsyncResponsesToolRunner
from pydantic import BaseModel, Field

from tests.api.servers import ProxyServer

MODELS = ["demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-agent", "demo-completion", "demo-workflow"]


class Weather(BaseModel):
    """Look up the weather of a city."""

    city: str
    unit: Literal["celsius", "fahrenheit"] = Field(description="Unit of the temperature.")


class Place(BaseModel):
    name: str
    country: str | None


class Trip(BaseModel):
    """A trip: the answer that the client asks for."""

    title: str
    days: int
    pace: Literal["slow", "fast"]
    places: list[Place]


ABOUT_TRIP = "Plan a trip: title='Two Rivers', days=3, pace=fast."
ABOUT_WEATHER = "Call Weather with city=Paris, unit=celsius."


def check_trip(trip: Trip | None) -> None:
    assert trip is not None
    assert (trip.days, trip.pace) == (3, "fast")


@pytest.mark.parametrize("model", MODELS)
async def test_chat_parses_a_type(proxy: ProxyServer, model: str) -> None:
    async with proxy.client() as client:
        messages: Any = [{"role": "user", "content": ABOUT_TRIP}]
        completion = await client.chat.completions.parse(model=model, messages=messages, response_format=Trip)
        check_trip(completion.choices[0].message.parsed)
        async with client.chat.completions.stream(model=model, messages=messages, response_format=Trip) as stream:
            streamed = await stream.get_final_completion()
        check_trip(streamed.choices[0].message.parsed)


@pytest.mark.parametrize("model", MODELS)
async def test_responses_parse_a_type(proxy: ProxyServer, model: str) -> None:
    async with proxy.client() as client:
        response = await client.responses.parse(model=model, input=ABOUT_TRIP, text_format=Trip)
        check_trip(response.output_parsed)
        async with client.responses.stream(model=model, input=ABOUT_TRIP, text_format=Trip) as stream:
            streamed = await stream.get_final_response()
        check_trip(streamed.output_parsed)


@pytest.mark.parametrize("model", MODELS)
async def test_chat_parses_arguments(proxy: ProxyServer, model: str) -> None:
    more: Any = {"messages": [{"role": "user", "content": ABOUT_WEATHER}], "tools": [pydantic_function_tool(Weather)]}
    async with proxy.client() as client:
        completion = await client.chat.completions.parse(model=model, **more)
        async with client.chat.completions.stream(model=model, **more) as stream:
            events = [event.type async for event in stream]
            streamed = await stream.get_final_completion()
    for answer in (completion, streamed):
        assert answer.choices[0].finish_reason == "tool_calls"
        calls = answer.choices[0].message.tool_calls or []
        assert [call.function.parsed_arguments for call in calls] == [Weather(city="Paris", unit="celsius")]
    assert events.count("tool_calls.function.arguments.done") == 1


@pytest.mark.parametrize("model", MODELS)
async def test_responses_parse_arguments(proxy: ProxyServer, model: str) -> None:
    more: Any = {"input": ABOUT_WEATHER, "tools": [pydantic_responses_function_tool(Weather)]}
    async with proxy.client() as client:
        response = await client.responses.parse(model=model, **more)
        async with client.responses.stream(model=model, **more) as stream:
            streamed = await stream.get_final_response()
    for answer in (response, streamed):
        calls = [item for item in answer.output if item.type == "function_call"]
        assert [call.parsed_arguments for call in calls] == [Weather(city="Paris", unit="celsius")]


async def _run(client: AsyncOpenAI, model: str, question: str, **options: Any) -> tuple[str, list[Weather]]:
    """Return the answer and the calls of OpenAI's runner for Responses."""
    seen: list[Weather] = []

    async def look_up(arguments: Weather) -> str:
        seen.append(arguments)
        return f"{len(arguments.city)} degrees in {arguments.city}"

    tool = AsyncRegisteredFunction.from_tool(pydantic_responses_function_tool(Weather), execute=look_up)
    runner = AsyncResponsesToolRunner(functions=[tool])
    response = await runner.run(client, {"model": model, "input": question}, max_steps=4, **options)
    return response.output_text, seen


OPTIONS: dict[str, dict[str, bool]] = {
    "whole": {},
    "streamed": {"stream": True},
    "eager": {"stream": True, "eager": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("model", MODELS)
async def test_tool_runner(proxy: ProxyServer, model: str, options: dict[str, bool]) -> None:
    async with proxy.client() as client:
        text, seen = await _run(client, model, ABOUT_WEATHER, **options)
        assert seen == [Weather(city="Paris", unit="celsius")]
        assert "5 degrees in Paris" in text


async def test_tool_runner_makes_several_calls(proxy: ProxyServer) -> None:
    question = "Call Weather(city=Paris, unit=celsius) and Weather(city=Berlin, unit=fahrenheit)."
    async with proxy.client() as client:
        whole, streamed = await asyncio.gather(
            _run(client, "demo-chat", question), _run(client, "demo-chat", question, stream=True)
        )
    for text, seen in (whole, streamed):
        assert [(weather.city, weather.unit) for weather in seen] == [("Paris", "celsius"), ("Berlin", "fahrenheit")]
        assert "5 degrees in Paris" in text
        assert "6 degrees in Berlin" in text
