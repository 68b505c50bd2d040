"""The page itself: accessible in both themes and at every width, small, and safe."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import OpenPage

MAX_TRANSFER = 150_000
"""Bytes of the page with all its files, compressed."""


def violations(page: Page, axe: str) -> list[Any]:
    """Return what axe-core finds wrong with the page. The policy of the page forbids scripts that tests add to it."""
    page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": axe})
    found = page.evaluate("async () => JSON.stringify((await axe.run()).violations)")
    return [(item["id"], [node["html"][:200] for node in item["nodes"]]) for item in json.loads(found)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("view", ["playground", "pictures", "apps", "traffic", "keys"])
def test_every_view_is_accessible(open_page: OpenPage, axe: str, view: str, width: int, scheme: str) -> None:
    page = open_page(view, scheme=scheme, width=width)
    page.wait_for_load_state("networkidle")
    assert violations(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


def test_an_answer_is_accessible(open_page: OpenPage, axe: str) -> None:
    page = open_page()
    page.get_by_role("textbox", name="Question", exact=True).fill("THINK CITE")
    page.keyboard.press("Enter")
    expect(page.locator("article.answer[aria-busy=false]")).to_have_count(1)
    assert violations(page, axe) == []


def test_the_page_is_small_and_does_not_shift(open_page: OpenPage) -> None:
    page = open_page()
    page.wait_for_load_state("networkidle")
    transfer = page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".filter((entry) => !entry.name.includes('/v1/')).reduce((sum, entry) => sum + entry.encodedBodySize, 0)"
    )
    assert 0 < transfer < MAX_TRANSFER
    shifts = page.evaluate(
        """() => new Promise((resolve) => {
            const observer = new PerformanceObserver((list) => resolve(list.getEntries().map((entry) => entry.value)));
            observer.observe({type: "layout-shift", buffered: true});
            setTimeout(() => resolve([]), 200);
        })"""
    )
    assert sum(shifts) < 0.1


def test_the_theme_is_remembered(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Theme").select_option("dark")
    page.reload()
    expect(page.get_by_label("Theme")).to_have_value("dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"


def test_the_keyboard_reaches_the_content(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
