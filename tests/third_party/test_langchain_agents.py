"""LangChain's agents and `with_structured_output`, over both APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from pydantic import BaseModel

from tests.api.servers import ProxyServer
from tests.limits import PATIENCE
from tests.third_party.notices import PARSED_FIELD
from tests.third_party.trips import ABOUT_TRIP, ABOUT_WEATHER, Trip, check_trip, degrees

pytestmark = pytest.mark.filterwarnings(PARSED_FIELD)

APIS: dict[str, dict[str, Any]] = {"chat": {"stream_usage": True}, "responses": {"use_responses_api": True}}


@pytest.fixture
async def connection() -> AsyncIterator[DefaultAsyncHttpxClient]:
    async with DefaultAsyncHttpxClient(verify=False, timeout=PATIENCE) as http:
        yield http


@pytest.fixture(params=APIS)
def model(request: pytest.FixtureRequest, proxy: ProxyServer, connection: DefaultAsyncHttpxClient) -> ChatOpenAI:
    options = APIS[request.param]
    return ChatOpenAI(model="demo-chat", base_url=proxy.url, api_key="any", http_async_client=connection, **options)


@tool
def get_weather(city: str) -> str:
    """Look up the weather of a city."""
    return degrees(city)


@pytest.mark.parametrize("strict", [None, True])
@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
async def test_structured_output(
    model: ChatOpenAI, method: Literal["function_calling", "json_schema"], strict: bool | None
) -> None:
    typed = model.with_structured_output(Trip, method=method, strict=strict)
    check_trip(await typed.ainvoke(ABOUT_TRIP))
    last = None
    async for piece in typed.astream(ABOUT_TRIP):
        last = piece
    check_trip(last)


async def test_structured_output_in_json_mode(model: ChatOpenAI) -> None:
    typed = model.with_structured_output(None, method="json_mode")
    answer = await typed.ainvoke("Return a JSON object with the keys 'setup' and 'punchline'.")
    assert set(answer) == {"setup", "punchline"}


async def test_structured_output_with_raw(model: ChatOpenAI) -> None:
    answer = await model.with_structured_output(Trip, include_raw=True).ainvoke(ABOUT_TRIP)
    check_trip(answer["parsed"])
    assert answer["parsing_error"] is None


async def test_agent(model: ChatOpenAI) -> None:
    agent = create_agent(model, [get_weather], system_prompt="You know the weather.")
    messages = (await agent.ainvoke({"messages": [("user", ABOUT_WEATHER)]}))["messages"]
    assert [call["args"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls] == [
        {"city": "Paris"}
    ]
    assert [message.content for message in messages if isinstance(message, ToolMessage)] == [degrees("Paris")]
    assert degrees("Paris") in messages[-1].text
    more = await agent.ainvoke({"messages": [*messages, ("user", ABOUT_WEATHER.replace("Paris", "Berlin"))]})
    assert degrees("Berlin") in more["messages"][-1].text


async def test_agent_streams(model: ChatOpenAI) -> None:
    agent = create_agent(model, [get_weather])
    pieces = [
        piece.text
        async for piece, _ in agent.astream({"messages": [("user", ABOUT_WEATHER)]}, stream_mode="messages")
        if not isinstance(piece, ToolMessage)
    ]
    assert degrees("Paris") in "".join(pieces)


@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
async def test_agent_answers_in_a_type(model: ChatOpenAI, strategy: type[Any]) -> None:
    class Report(BaseModel):
        """The weather of a city."""

        summary: str
        temperature: int

    agent = create_agent(model, [get_weather], response_format=strategy(Report))
    answer = await agent.ainvoke({"messages": [("user", ABOUT_WEATHER)]})
    assert answer["structured_response"].temperature == len("Paris")
