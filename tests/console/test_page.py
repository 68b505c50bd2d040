"""The page itself: accessible in both themes and at every width, small, and safe."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import DESKTOP, PHONE, Look, OpenPage
from tests.console.pages import check

MAX_TRANSFER = 150_000
"""Bytes of the page with all its files, compressed."""

VIEWS = {
    "Playground": ".composer",
    "Pictures": ".parameters",
    "Apps": ".card .badge",
    "Traffic": "canvas",
    "Keys": ".empty",
}
"""The views, with what each one shows when it has loaded."""

TRANSFER = """performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))
    .filter((entry) => !entry.name.includes('/v1/')).reduce((sum, entry) => sum + entry.encodedBodySize, 0)"""

SHIFTS = """() => new Promise((resolve) => {
    let sum = 0;
    const add = (entries) => { for (const { value } of entries) sum += value; };
    const observer = new PerformanceObserver((list) => add(list.getEntries()));
    observer.observe({type: "layout-shift", buffered: true});
    requestAnimationFrame(() => requestAnimationFrame(() => { add(observer.takeRecords()); resolve(sum); }));
})"""


@pytest.mark.parametrize(
    "look",
    [DESKTOP, PHONE, Look("dark", 1280), Look("light", 390), Look("light", 800)],
    ids=lambda look: f"{look.scheme}-{look.width}",
)
def test_every_view_is_accessible(open_page: OpenPage, axe: str) -> None:
    page = open_page()
    for title, part in VIEWS.items():
        page.get_by_role("link", name=title, exact=True).click()
        page.locator(part).first.wait_for(state="attached")
        expect(page).to_have_title(f"{title} – OpenAI Dify Proxy")
        check(page, axe)


@pytest.mark.parametrize("title", VIEWS)
def test_the_page_is_small_and_does_not_shift(open_page: OpenPage, title: str) -> None:
    page = open_page(title.lower())
    page.locator(VIEWS[title]).first.wait_for(state="attached")
    assert page.evaluate(SHIFTS) < 0.1
    assert 0 < page.evaluate(TRANSFER) < MAX_TRANSFER


def test_the_theme_is_remembered(open_page: OpenPage) -> None:
    page = open_page()
    for theme, colour in (("dark", "rgb(16, 20, 25)"), ("light", "rgb(255, 255, 255)")):
        page.get_by_label("Theme").select_option(theme)
        page.reload()
        expect(page.get_by_label("Theme")).to_have_value(theme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == colour


def test_the_keyboard_reaches_the_content_and_sends(open_page: OpenPage) -> None:
    page = open_page()
    question = page.get_by_role("textbox", name="Question", exact=True)
    expect(question).to_be_in_viewport()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    question.focus()
    page.keyboard.type("SAY<<one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two>>")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article", name="Answer", exact=True)).to_contain_text("two")
    expect(page.get_by_role("article", name="Question", exact=True)).to_contain_text("SAY<<one\ntwo>>")


@pytest.mark.parametrize("view", ["playground", "pictures", "apps", "traffic", "keys"])
def test_a_server_that_does_not_answer_is_reported_with_a_remedy(open_page: OpenPage, view: str, axe: str) -> None:
    page = open_page("keys" if view != "keys" else "apps", failures=FAILURES[view])
    page.get_by_role("heading").nth(1).wait_for()
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    page.get_by_role("link", name=view.capitalize(), exact=True).click()
    alert = page.get_by_role("alert").first
    expect(alert).to_contain_text("The proxy does not answer. Is it running?")
    check(page, axe)
    page.context.set_offline(False)
    if view != "traffic":  # it tries again by itself
        alert.get_by_role("button", name="Try again").click()
    shown(page, view)
    expect(page.get_by_role("alert")).to_have_count(0)


FAILURES = {"playground": 1, "pictures": 1, "apps": 1, "traffic": 2, "keys": 2}
"""The requests that each view sends first."""


def shown(page: Page, view: str) -> None:
    page.locator(VIEWS[view.capitalize()]).first.wait_for(state="attached")
