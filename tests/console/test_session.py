"""The sign-in of the console in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from openai_dify_proxy.settings import SecretStr, Settings
from tests.api.servers import ProxyServer
from tests.console.conftest import OpenPage
from tests.console.pages import answer, ask, check, sign_in

ONE, TWO = "first-client-key-of-some-length", "second-client-key-of-some-length"


class TestAServerWithKeys:
    @pytest.fixture(scope="class")
    @classmethod
    def proxy(cls, settings: Settings) -> Iterator[ProxyServer]:
        with ProxyServer(replace(settings, api_keys=(SecretStr(ONE), SecretStr(TWO)))) as running:
            yield running

    def test_asks_for_a_key_and_remembers_it_for_the_tab(self, open_page: OpenPage, axe: str) -> None:
        page = open_page(failures=1)
        sign_in(page, "wrong")
        expect(page.get_by_role("alert")).to_contain_text("The API key is invalid")
        check(page, axe)
        sign_in(page, ONE)
        ask(page, "SAY<<welcome>>")
        expect(answer(page)).to_have_text("welcome")
        page.reload()
        expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
        cookies = page.context.cookies()
        assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")]
        assert ONE not in str(cookies)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Key", exact=True)).to_be_visible()
        page.reload()
        expect(page.get_by_label("Key", exact=True)).to_be_visible()

    def test_takes_the_key_of_a_dify_app(self, open_page: OpenPage) -> None:
        page = open_page()
        sign_in(page, "app-demo-agent-chat")
        ask(page, "SAY<<welcome>>")
        expect(answer(page)).to_have_text("welcome")
        assert page.context.cookies() == []
        page.reload()
        expect(page.get_by_label("Key", exact=True)).to_be_visible()

    def test_two_tabs_have_two_keys(self, open_page: OpenPage) -> None:
        first = open_page()
        sign_in(first, ONE)
        ask(first, "My secret is 1234")
        answer(first)
        second = first.context.new_page()
        second.goto("/")
        sign_in(second, TWO)
        ask(second, "RECALL")
        expect(answer(second)).not_to_contain_text("1234")
        ask(first, "RECALL")
        expect(answer(first, 2)).to_contain_text("1234")

    def test_shows_the_pictures_of_the_server_to_admins_only(self, open_page: OpenPage, axe: str) -> None:
        page = open_page("pictures", failures=1)
        sign_in(page, ONE)
        expect(page.get_by_text("An admin key shows the stored pictures.")).to_be_visible()
        check(page, axe)


class TestAServerWithoutApps:
    @pytest.fixture(scope="class")
    @classmethod
    def proxy(cls, settings: Settings) -> Iterator[ProxyServer]:
        with ProxyServer(replace(settings, apps={}, default_app=None)) as running:
            yield running

    @pytest.mark.parametrize("view", ["playground", "apps"])
    def test_shows_how_to_begin(self, open_page: OpenPage, view: str, axe: str) -> None:
        page = open_page(view)
        expect(page.get_by_role("heading", name="Three ways to begin")).to_be_visible()
        check(page, axe)
        sign_in(page, "app-demo-chat")
        page.get_by_role("link", name="Playground").click()
        ask(page, "SAY<<welcome>>")
        expect(answer(page)).to_have_text("welcome")


class TestAServerWithNothing:
    @pytest.fixture(scope="class")
    @classmethod
    def proxy(cls, settings: Settings) -> Iterator[ProxyServer]:
        without = replace(settings, apps={}, default_app=None, dify_api_url=None, replicate_api_token=None)
        with ProxyServer(without) as running:
            yield running

    def test_names_what_is_missing(self, open_page: OpenPage, axe: str) -> None:
        page = open_page()
        missing = page.locator(".notice")
        expect(missing.filter(has_text="DIFY_API_URL")).to_be_visible()
        expect(missing.filter(has_text="REPLICATE_API_TOKEN")).to_be_visible()
        check(page, axe)
        page.get_by_role("link", name="Pictures").click()
        expect(page.get_by_role("heading", name="No image models")).to_be_visible()
        expect(page.get_by_role("heading", name="Nothing stored yet")).to_be_visible()
        check(page, axe)
