"""The apps of the console in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from openai_dify_proxy.settings import Settings
from tests.api.servers import ProxyServer, app_settings
from tests.console.conftest import APPS, OpenPage
from tests.console.pages import check


def test_every_app_is_shown_with_what_it_can_do(open_page: OpenPage) -> None:
    page = open_page("apps")
    for name in APPS:
        card = page.get_by_role("article", name=name, exact=True)
        expect(card).to_contain_text("works")
        expect(card).to_contain_text("1.16.1")
    page.get_by_role("article", name="demo-agent", exact=True).get_by_role("link", name="Try it").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("demo-agent")


def test_the_snippet_of_each_client_names_the_server_and_the_app(open_page: OpenPage, proxy: ProxyServer) -> None:
    page = open_page("apps")
    page.get_by_role("article", name="demo-workflow", exact=True).get_by_role("link", name="Set up a client").click()
    choices = page.get_by_role("group", name="Set up a client for demo-workflow")
    expect(choices).to_be_in_viewport()
    clients = choices.get_by_role("button")
    expect(clients).to_have_count(10)
    for client in clients.all():
        client.click()
        text = page.locator(".set-up pre").inner_text()
        assert f"{proxy.url}" in text
        assert "demo-workflow" in text or client.inner_text() == "Open WebUI"


class TestAppsWithProblems:
    @pytest.fixture(scope="class")
    @classmethod
    def proxy(cls, settings: Settings) -> Iterator[ProxyServer]:
        url = settings.dify_api_url
        assert url is not None
        wrong = app_settings("wrong", "app-demo-workflow", url, input_variable="nothing")
        gone = app_settings("gone", "app-demo-chat", "http://127.0.0.1:9/v1")
        with ProxyServer(replace(settings, apps={"wrong": wrong, "gone": gone})) as running:
            yield running

    def test_are_named_with_the_remedy(self, open_page: OpenPage, axe: str) -> None:
        page = open_page("apps")
        wrong = page.get_by_role("article", name="wrong", exact=True)
        expect(wrong.locator("h2 .badge")).to_have_text("has problems")
        expect(wrong.locator(".findings .problem")).to_contain_text("input_variable names 'nothing'")
        gone = page.get_by_role("article", name="gone", exact=True)
        expect(gone.locator("h2 .badge")).to_have_text("no answer from Dify")
        check(page, axe)
