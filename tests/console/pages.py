"""What a person does on the pages of the console."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page, expect


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in", exact=True).click()


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Question", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def answer(page: Page, count: int = 1) -> Locator:
    """Return the text of the last answer, once there are ``count`` and none is running."""
    finished = page.locator("article.answer[aria-busy=false]")
    expect(finished).to_have_count(count)
    return finished.last.locator(".markdown").last


def open_settings(page: Page) -> None:
    """Unfold the settings of the playground, which are folded on a phone."""
    page.locator(".options").wait_for()
    settings = page.locator(".options > details")
    if settings.count():
        settings.get_by_text("Settings", exact=True).click()


def open_setting(page: Page, name: str) -> None:
    """Unfold the settings of the playground, and one of them."""
    open_settings(page)
    page.locator(".options summary").get_by_text(name, exact=True).click()


def violations(page: Page, axe: str) -> list[Any]:
    """Return what axe-core finds wrong with the page. The policy of the page forbids scripts that tests add to it."""
    page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": axe})
    found = page.evaluate("async () => JSON.stringify((await axe.run()).violations)")
    return [(item["id"], [node["html"][:200] for node in item["nodes"]]) for item in json.loads(found)]


def check(page: Page, axe: str) -> None:
    """Fail if the page is not accessible, or scrolls sideways."""
    assert violations(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
