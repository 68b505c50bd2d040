"""LangChain's standard tests for chat models, over both APIs.

The suite downloads its picture, document and recording from the internet; here it gets the ones below.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import INSTANT, DemoServer
from tests.api.servers import ProxyServer, counted_seconds, demo_apps
from tests.api.test_files import PDF, WAV, picture
from tests.limits import PATIENCE
from tests.third_party.notices import NO_FILE_NAME, PARSED_FIELD, PYDANTIC_V1

pytestmark = [pytest.mark.filterwarnings(notice) for notice in (NO_FILE_NAME, PARSED_FIELD, PYDANTIC_V1)]


FILES = {"png": picture("red"), "pdf": PDF, "wav": WAV}
"""The contents that the suite downloads, by extension."""


def download(url: str, **_: Any) -> SimpleNamespace:
    return SimpleNamespace(content=FILES[url.rpartition(".")[2]])


class Standard(ChatModelIntegrationTests):
    options: ClassVar[dict[str, Any]]
    url: ClassVar[str]
    connections: dict[str, Any]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _proxy(cls) -> Iterator[None]:
        with DemoServer(timing=INSTANT, clock=counted_seconds()) as demo:
            settings = Settings(
                dify_api_url=demo.url, apps=demo_apps(demo.url), state_url=SecretStr("memory://"), default_app=None
            )
            with ProxyServer(settings) as proxy:
                cls.url = proxy.url
                yield

    @pytest.fixture(autouse=True)
    async def _connections(self) -> AsyncIterator[None]:
        """LangChain would otherwise share its connections between tests, each of which has its own event loop."""
        with DefaultHttpxClient(verify=False, timeout=PATIENCE) as blocking:
            async with DefaultAsyncHttpxClient(verify=False, timeout=PATIENCE) as http:
                self.connections = {"http_client": blocking, "http_async_client": http}
                yield

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": self.url, "api_key": "any", "model": "demo-chat-media", **self.connections, **self.options}

    @pytest.fixture(autouse=True)
    def _downloads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chat_models, "httpx", SimpleNamespace(get=download))
        monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "any")

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_pdf_tool_message(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "demo-agent-chat"


class TestChat(Standard):
    options: ClassVar = {"stream_usage": True}


class TestResponses(Standard):
    options: ClassVar = {"use_responses_api": True}
