"""The docs site builds, all its links lead somewhere, and it needs no other host: not even for search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts import docs_site
from tests.console.conftest import browser  # noqa: F401 - a fixture
from tests.limits import PATIENCE

PAGES = sorted(path.name for path in docs_site.DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("docs") / "site"
    docs_site.build(built)
    return built


class Links(HTMLParser):
    """Collects the links, loaded addresses and anchors of one page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        address = found.get("href") or found.get("src")
        if address and (tag == "a" or found.get("rel") in ("next", "prev")):
            self.links.append(address)
        elif address:
            self.loaded.append(address)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Links]:
    return {path.name: Links(path) for path in site.glob("*.html") if path.name != "404.html"}


def test_every_page_is_in_the_navigation(pages: dict[str, Links]) -> None:
    linked = {urlsplit(link).path.removeprefix("./") for link in pages["index.html"].links}
    assert {name.replace(".md", ".html") for name in PAGES} <= linked | {"index.html"}


def test_every_link_and_anchor_resolves(pages: dict[str, Links], site: Path) -> None:
    broken = []
    for name, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = unquote(parts.path) or name
            found = (site / target).is_file()
            anchor_found = not parts.fragment or target not in pages or parts.fragment in pages[target].anchors
            if not (found and anchor_found):
                broken.append((name, link))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[str, Links], site: Path) -> None:
    loaded = {address for page in pages.values() for address in page.loaded}
    assert len(loaded) > 5
    assert [address for address in loaded if urlsplit(address).netloc] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"url\([\"']?https?:[^)]*\)|@import[^;]*", styles) == []


def test_markdown_and_llms_txt(site: Path) -> None:
    llms = (site / "llms.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): .{20,}$", llms, re.MULTILINE)
    assert sorted(listed) == PAGES
    assert "```" not in llms
    assert all((site / name).read_bytes() == (docs_site.DOCS / name).read_bytes() for name in listed)


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:  # noqa: F811 - the fixture
    """Open the start page from its directory, and fail for each request that leaves it."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    foreign: list[str] = []
    opened = context.new_page()
    opened.on("request", lambda request: foreign.append(request.url) if request.url.startswith("http") else None)
    opened.goto((site / "index.html").as_uri())
    yield opened
    context.close()
    assert foreign == []


def test_search_works_without_a_server(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("SILENCE_TIMEOUT")
    expect(page.get_by_role("option").filter(has_text="Settings").first).to_be_visible()
