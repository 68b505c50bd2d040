"""The apps of the console in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from openai_dify_proxy.settings import Settings
from tests.api.servers import ProxyServer, app_settings
from tests.console.conftest import APPS, OpenPage


def test_every_app_is_shown_with_what_it_can_do(open_page: OpenPage) -> None:
    page = open_page("apps")
    for name in APPS:
        card = page.get_by_role("article", name=name, exact=True)
        expect(card).to_contain_text("works")
        expect(card).to_contain_text("1.16.1")


def test_the_snippet_of_each_client_names_the_server_and_the_app(open_page: OpenPage, proxy: ProxyServer) -> None:
    page = open_page("apps/demo-workflow")
    clients = page.get_by_role("group", name="Set up a client for demo-workflow").get_by_role("button")
    expect(clients).to_have_count(10)
    for client in clients.all():
        client.click()
        text = page.locator(".set-up pre").inner_text()
        assert f"{proxy.url}" in text
        assert "demo-workflow" in text or client.inner_text() == "Open WebUI"


def test_an_app_leads_to_the_playground(open_page: OpenPage) -> None:
    page = open_page("apps")
    page.get_by_role("article", name="demo-agent", exact=True).get_by_role("link", name="Try it").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("demo-agent")


class TestAnAppWithProblems:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        url = settings.dify_api_url
        assert url is not None
        wrong = app_settings("wrong", "app-demo-workflow", url, input_variable="nothing")
        return settings.model_copy(update={"apps": {"wrong": wrong}})

    def test_names_them_with_the_remedy(self, open_page: OpenPage) -> None:
        page = open_page("apps")
        expect(page.locator(".badge")).to_have_text("has problems")
        expect(page.locator(".findings .problem")).to_contain_text("input_variable names 'nothing'")
