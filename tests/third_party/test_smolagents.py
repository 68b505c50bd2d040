"""smolagents: its agents that call tools and that write code."""

from __future__ import annotations

import pytest
from openai import DefaultHttpxClient
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

from tests.api.servers import ProxyServer
from tests.third_party.trips import ABOUT_WEATHER, degrees


@pytest.fixture
def model(proxy: ProxyServer, connections: DefaultHttpxClient) -> OpenAIModel:
    return OpenAIModel("demo-chat", proxy.url, api_key="any", client_kwargs={"http_client": connections})


@tool
def get_weather(city: str) -> str:
    """Look up the weather of a city.

    Args:
        city: The name of the city.
    """
    return f"{len(city)} degrees in {city}"


def test_tool_calling_agent(model: OpenAIModel) -> None:
    agent = ToolCallingAgent(tools=[get_weather], model=model, max_steps=4, verbosity_level=0)
    assert degrees("Paris") in str(agent.run(ABOUT_WEATHER))


def test_tool_calling_agent_streams(model: OpenAIModel) -> None:
    agent = ToolCallingAgent(tools=[get_weather], model=model, max_steps=4, verbosity_level=0, stream_outputs=True)
    assert degrees("Paris") in str(agent.run(ABOUT_WEATHER))


def test_code_agent(model: OpenAIModel) -> None:
    agent = CodeAgent(tools=[get_weather], model=model, max_steps=2, verbosity_level=0)
    code = "<code>\nfinal_answer(get_weather(city='Paris'))\n</code>"
    assert agent.run(f"What is the weather in Paris? SAY<<Thought: I ask.\n{code}>>") == degrees("Paris")


def test_code_agent_with_a_type(model: OpenAIModel) -> None:
    agent = CodeAgent(
        tools=[get_weather], model=model, max_steps=2, verbosity_level=0, use_structured_outputs_internally=True
    )
    question = 'thought="I ask", code="final_answer(get_weather(\'Paris\'))"'
    assert agent.run(question) == degrees("Paris")
