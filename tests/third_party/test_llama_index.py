"""LlamaIndex: structured predictions and its agent, over both APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.prompts import PromptTemplate
from llama_index.core.workflow import Context
from llama_index.llms.openai import OpenAI, OpenAIResponses
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import DemoServer
from tests.api.servers import ProxyServer, app_settings
from tests.limits import PATIENCE
from tests.third_party.notices import ALL_ATTRIBUTES, UNSERIALIZED_MEMORY
from tests.third_party.trips import ABOUT_TRIP, ABOUT_WEATHER, Trip, check_trip, degrees

pytestmark = [pytest.mark.filterwarnings(ALL_ATTRIBUTES), pytest.mark.filterwarnings(UNSERIALIZED_MEMORY)]


@pytest.fixture
def proxy(demo: DemoServer) -> Iterator[ProxyServer]:
    """Serve an app with a name that LlamaIndex knows: it refuses others, as it has no context size for them."""
    app = app_settings("gpt-4o", "app-demo-chat", demo.url)
    state = SecretStr("memory://")
    with ProxyServer(Settings(dify_api_url=demo.url, apps={"gpt-4o": app}, state_url=state)) as running:
        yield running


@pytest.fixture(params=[OpenAI, OpenAIResponses])
async def llm(
    request: pytest.FixtureRequest, proxy: ProxyServer, connections: DefaultHttpxClient
) -> AsyncIterator[Any]:
    async with DefaultAsyncHttpxClient(verify=False, timeout=PATIENCE) as http:
        yield request.param(
            model="gpt-4o", api_base=proxy.url, api_key="any", http_client=connections, async_http_client=http
        )


def get_weather(city: str) -> str:
    """Look up the weather of a city."""
    return degrees(city)


async def test_structured_predict(llm: Any) -> None:
    prompt = PromptTemplate("{question}")
    check_trip(llm.structured_predict(Trip, prompt, question=ABOUT_TRIP))
    check_trip(await llm.astructured_predict(Trip, prompt, question=ABOUT_TRIP))


async def test_function_agent(llm: Any) -> None:
    agent = FunctionAgent(tools=[get_weather], llm=llm, system_prompt="You know the weather.")
    context = Context(agent)
    assert degrees("Paris") in str(await agent.run(ABOUT_WEATHER, ctx=context))
    assert degrees("Berlin") in str(await agent.run(ABOUT_WEATHER.replace("Paris", "Berlin"), ctx=context))
