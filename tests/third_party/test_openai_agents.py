"""OpenAI's Agents SDK, over both APIs."""

from __future__ import annotations

import pytest
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    SQLiteSession,
    function_tool,
)
from openai import AsyncOpenAI

from tests.third_party.trips import ABOUT_TRIP, ABOUT_WEATHER, Trip, check_trip, degrees

OFFLINE = RunConfig(tracing_disabled=True)
"""Traces would be sent to OpenAI."""


@pytest.fixture(params=[OpenAIChatCompletionsModel, OpenAIResponsesModel])
def model(request: pytest.FixtureRequest, client: AsyncOpenAI) -> Model:
    return request.param("demo-chat", openai_client=client)


@function_tool
def get_weather(city: str) -> str:
    """Look up the weather of a city."""
    return degrees(city)


async def test_tools_and_session(model: Model) -> None:
    agent = Agent(name="Forecaster", instructions="You know the weather.", tools=[get_weather], model=model)
    session = SQLiteSession("weather")
    first = await Runner.run(agent, ABOUT_WEATHER, session=session, run_config=OFFLINE)
    assert degrees("Paris") in first.final_output
    second = await Runner.run(agent, ABOUT_WEATHER.replace("Paris", "Berlin"), session=session, run_config=OFFLINE)
    assert degrees("Berlin") in second.final_output
    assert [item.type for item in second.new_items] == [
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    session.close()


async def test_streamed_tools(model: Model) -> None:
    agent = Agent(name="Forecaster", tools=[get_weather], model=model)
    run = Runner.run_streamed(agent, ABOUT_WEATHER, run_config=OFFLINE)
    items = [event.item.type async for event in run.stream_events() if event.type == "run_item_stream_event"]
    assert items == ["tool_call_item", "tool_call_output_item", "message_output_item"]
    assert degrees("Paris") in run.final_output


async def test_answer_in_a_type(model: Model) -> None:
    agent = Agent(name="Planner", output_type=Trip, model=model)
    check_trip((await Runner.run(agent, ABOUT_TRIP, run_config=OFFLINE)).final_output)
    run = Runner.run_streamed(agent, ABOUT_TRIP, run_config=OFFLINE)
    async for _ in run.stream_events():
        pass
    check_trip(run.final_output)


async def test_forced_tool(model: Model) -> None:
    agent = Agent(
        name="Forecaster", tools=[get_weather], model=model, model_settings=ModelSettings(tool_choice="get_weather")
    )
    result = await Runner.run(agent, "Is it warm in Paris?", run_config=OFFLINE)
    assert degrees("Paris") in result.final_output


async def test_handoff(model: Model) -> None:
    forecaster = Agent(name="Forecaster", tools=[get_weather], model=model)
    desk = Agent(name="Desk", handoffs=[forecaster], model=model)
    result = await Runner.run(desk, "Call transfer_to_forecaster", run_config=OFFLINE)
    assert result.last_agent is forecaster
