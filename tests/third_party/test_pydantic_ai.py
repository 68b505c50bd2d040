"""pydantic-ai, over both APIs: tools, and answers in a type by each of its ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.third_party.trips import ABOUT_TRIP, ABOUT_WEATHER, Trip, check_trip, degrees

WAYS: dict[str, Callable[[], object]] = {
    "default": lambda: Trip,
    "tool": lambda: ToolOutput(Trip),
    "native": lambda: NativeOutput(Trip),
    "prompted": lambda: PromptedOutput(Trip),
}


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel])
def model(request: pytest.FixtureRequest, client: AsyncOpenAI) -> Model:
    return request.param("demo-chat", provider=OpenAIProvider(openai_client=client))


def get_weather(city: str) -> str:
    """Look up the weather of a city."""
    return degrees(city)


async def test_tools(model: Model) -> None:
    agent = Agent(model, tools=[get_weather], instructions="You know the weather.")
    first = await agent.run(ABOUT_WEATHER)
    assert degrees("Paris") in first.output
    question = ABOUT_WEATHER.replace("Paris", "Berlin")
    second = await agent.run(question, message_history=first.all_messages())
    assert degrees("Berlin") in second.output
    results = [part for message in second.all_messages() for part in message.parts if isinstance(part, ToolReturnPart)]
    assert [result.content for result in results] == [degrees("Paris"), degrees("Berlin")]


async def test_streamed_tools(model: Model) -> None:
    async with Agent(model, tools=[get_weather]).run_stream(ABOUT_WEATHER) as run:
        assert degrees("Paris") in await run.get_output()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_answer_in_a_type(model: Model, way: Callable[[], object]) -> None:
    agent = Agent(model, output_type=way())
    check_trip((await agent.run(ABOUT_TRIP)).output)
    async with agent.run_stream(ABOUT_TRIP) as run:
        check_trip(await run.get_output())


async def test_tools_and_a_type(model: Model) -> None:
    agent = Agent(model, tools=[get_weather], output_type=Trip)
    result = await agent.run(ABOUT_WEATHER)
    assert isinstance(result.output, Trip)
    results = [part for message in result.all_messages() for part in message.parts if isinstance(part, ToolReturnPart)]
    assert results[0].content == degrees("Paris")
