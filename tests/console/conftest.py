"""A real browser on the console of a real proxy with the demo.

A page fails its test if the browser reports an error, a violation of the content security policy, or a request to
another server. Each test runs in both looks. Servers and the browser start once for each module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy_demo import INSTANT, DemoServer
from openai_dify_proxy_demo.replicate import INSTANT as INSTANT_PICTURES
from openai_dify_proxy_demo.replicate import DemoReplicate
from tests import parts
from tests.api.image_requests import image_settings
from tests.api.servers import ProxyServer, app_settings, counted_seconds
from tests.limits import PATIENCE

APPS = ("demo-chat", "demo-agent-chat", "demo-advanced-chat", "demo-completion", "demo-workflow", "demo-agent")

FLAGS = ("--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
"""The tests may run as root, where Chromium's sandbox does not start."""


@dataclass(frozen=True)
class Look:
    scheme: Literal["light", "dark"]
    width: int


DESKTOP = Look("light", 1280)
PHONE = Look("dark", 390)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the browser for one module, without asynchronous tests: Playwright runs an event loop."""
    folder = parts.browser()
    environment: dict[str, str | float | bool] = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "FONTCONFIG_PATH": str(folder),
        "HOME": str(folder),
    }
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=folder / "chromium", args=list(FLAGS), env=environment, timeout=PATIENCE * 1000
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def axe() -> str:
    return parts.axe()


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    with DemoServer(timing=INSTANT, clock=counted_seconds()) as running:
        yield running


@pytest.fixture(scope="module")
def replicate() -> Iterator[DemoReplicate]:
    with DemoReplicate(timing=INSTANT_PICTURES) as running:
        yield running


@pytest.fixture(scope="module")
def settings(demo: DemoServer, replicate: DemoReplicate, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of ``proxy``. Test classes serve variants of them."""
    folder = tmp_path_factory.mktemp("console")
    apps = {name: app_settings(name, f"app-{name}", demo.url) for name in APPS}
    state = SecretStr(f"sqlite:///{folder}/state.db")
    return Settings(**image_settings(replicate, folder, dify_api_url=demo.url, apps=apps, state_url=state))


@pytest.fixture(scope="module")
def proxy(settings: Settings) -> Iterator[ProxyServer]:
    with ProxyServer(settings) as running:
        yield running


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def look(request: pytest.FixtureRequest) -> Look:
    return request.param  # type: ignore[no-any-return]


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, proxy: ProxyServer, look: Look) -> Iterator[OpenPage]:
    """Open a view of the console in a browser of its own: ``open_page("apps")``.

    The browser reports a failed request as an error too; ``failures`` is the number of these that the test expects.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []
    expected = 0

    def open_view(view: str = "", *, failures: int = 0) -> Page:
        nonlocal expected
        expected += failures
        context = browser.new_context(
            base_url=proxy.origin,
            locale="en-US",  # else it is that of the machine, which may be none
            color_scheme=look.scheme,
            viewport={"width": look.width, "height": 900},
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.on("console", lambda message: _note(message, problems))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: _note_foreign(request, proxy.origin, problems))
        page.goto(f"/#{view}")
        return page

    yield open_view
    for context in contexts:
        context.close()
    reported = [problem for problem in problems if "Failed to load resource" in problem]
    assert problems == reported
    assert len(reported) == expected


def _note(message: ConsoleMessage, problems: list[str]) -> None:
    if message.type in ("error", "warning"):
        problems.append(message.text)


def _note_foreign(request: Request, origin: str, problems: list[str]) -> None:
    if not request.url.startswith((f"{origin}/", "data:", "blob:")):
        problems.append(f"request to {request.url}")
