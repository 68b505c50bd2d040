"""The views for operators in a real browser: traffic and keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from openai_dify_proxy.keys.client_key import hash_of
from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy.settings.keys import ClientKeySettings
from tests.api.servers import ProxyServer
from tests.console.conftest import OpenPage
from tests.console.pages import answer, ask, check, sign_in

ADMIN, ANNA = "an-admin-key-of-some-length", "the-client-key-of-anna"


def test_traffic_shows_turns_errors_and_requests(open_page: OpenPage, axe: str) -> None:
    page = open_page(failures=1)
    ask(page, "SAY<<fine>>")
    answer(page)
    with page.expect_response(re.compile("/v1/chat/completions")) as response:
        ask(page, "ERROR:rate")
    request_id = response.value.headers["x-request-id"]
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("link", name="Traffic").click()
    rows = page.get_by_label("Table of requests").locator("tbody tr")
    expect(rows.filter(has_text="200 stop").first).to_be_visible()
    expect(page.get_by_label("Errors", exact=True)).to_contain_text("RateLimited")
    expect(page.locator("canvas")).to_have_count(2)
    expect(page.get_by_label("Difys")).to_contain_text("answers")
    assert "fine" not in page.get_by_role("main").inner_text(), "the text of a chat is nowhere"
    page.get_by_role("searchbox").fill(request_id)
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(request_id)
    expect(rows).to_contain_text("429 rate_limit_exceeded")
    expect(rows).to_contain_text("The model provider behind Dify limits requests.")
    check(page, axe)
    page.get_by_role("searchbox").fill("no such request")
    expect(page.get_by_text("No request matches.")).to_be_visible()


def test_traffic_is_polled(open_page: OpenPage) -> None:
    page = open_page("traffic")
    rows = page.get_by_label("Table of requests").locator("tbody tr")
    page.get_by_role("searchbox").fill("demo-completion")
    before = rows.count()
    second = page.context.new_page()
    second.goto("/#playground/demo-completion")
    ask(second, "SAY<<new>>")
    answer(second)
    second.close()
    expect(rows).to_have_count(before + 1)


class TestAServerWithKeys:
    @pytest.fixture(scope="class")
    @classmethod
    def proxy(cls, settings: Settings) -> Iterator[ProxyServer]:
        admin = ClientKeySettings(name="admin", key=SecretStr(ADMIN), admin=True)
        anna = ClientKeySettings(
            name="anna", key=SecretStr(ANNA), requests_per_minute=60, daily_turns=100, daily_tokens=2_000_000
        )
        with ProxyServer(replace(settings, keys={"admin": admin, "anna": anna})) as running:
            yield running

    def test_shows_keys_to_admins_without_their_secrets(self, open_page: OpenPage, axe: str) -> None:
        page = open_page("keys")
        sign_in(page, ADMIN)
        table = page.get_by_label("Keys", exact=True)
        expect(table).to_contain_text("anna")
        expect(table).to_contain_text("requests per minute: 60")
        expect(table).to_contain_text("daily turns: 100; daily tokens: 2,000,000")
        text = page.content()
        assert all(secret not in text for key in (ADMIN, ANNA) for secret in (key, hash_of(key)))
        check(page, axe)

    def test_shows_nothing_of_others_to_anna(self, open_page: OpenPage, axe: str) -> None:
        page = open_page("keys", failures=2)
        sign_in(page, ANNA)
        expect(page.get_by_text("Keys are for operators.")).to_be_visible()
        check(page, axe)
        page.get_by_role("link", name="Traffic").click()
        expect(page.get_by_text("Traffic is for operators.")).to_be_visible()
        check(page, axe)
