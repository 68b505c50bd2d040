"""Take the pictures of the console in the docs, in both themes and on a phone.

Everything in them comes from a running server with the demo, and is done in the browser of the tests.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "assets" / "console"
BROWSER = ROOT / "tests" / "console" / "browser" / "node_modules" / ".browser"
SCALE = 1.5
QUALITY = 82

OPERATOR = "key-of-the-operators"
SETTINGS = f"""
[keys.operators]
key = "{OPERATOR}"
admin = true
[keys.anna]
key = "key-of-anna-in-support"
label = "Support team"
models = ["demo-chat", "demo-agent*"]
requests_per_minute = 60
daily_price = {{ USD = "5" }}
[keys.librechat]
key = "key-of-librechat-server"
label = "chat.example.com"
daily_tokens = 2000000
monthly_price = {{ USD = "250" }}
"""
SETTINGS_WITHOUT_APPS = 'dify_api_url = "https://dify.example.com/v1"'

DESKTOP, SHORT, PHONE = (1280, 800), (1280, 520), (390, 780)


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    environment: dict[str, str | float | bool] = {
        **os.environ,
        "LD_LIBRARY_PATH": str(BROWSER / "lib"),
        "FONTCONFIG_PATH": str(BROWSER),
        "HOME": str(BROWSER),
    }
    with serving(SETTINGS) as origin, serving(SETTINGS_WITHOUT_APPS) as empty, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=BROWSER / "chromium", args=["--no-sandbox", "--headless", "--disable-gpu"], env=environment
        )
        if "--figures" in sys.argv:
            print_figures(chromium, origin)
            return
        for scheme in ("light", "dark"):
            take(chromium, empty, scheme, SHORT, {"first-run": first_run})
            take(chromium, origin, scheme, SHORT, {"sign-in": asked_for_a_key})
            take(chromium, origin, scheme, DESKTOP, DESKTOP_VIEWS)
            take(chromium, origin, scheme, PHONE, PHONE_VIEWS)
        chromium.close()


@contextmanager
def serving(settings: str) -> Iterator[str]:
    """Run a server with these settings, and return its address."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "settings.toml").write_text(settings)
        command = [
            str(Path(sys.executable).parent / "openai-dify-proxy"),
            "serve",
            "--port",
            "0",
            "--config",
            "settings.toml",
        ]
        own = {"HOME": folder, "IMAGE_STORAGE_DIR": f"{folder}/pictures", "LOG_LEVEL": "error"}
        server = subprocess.Popen(  # noqa: S603 - a fixed command
            command, cwd=folder, env=os.environ | own, stdout=subprocess.PIPE, text=True
        )
        try:
            yield address(server)
        finally:
            server.terminate()
            server.wait()


def address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    raise SystemExit("The server did not start.")


def wanted(name: str) -> bool:
    """Return whether the command line names this view, or none."""
    return name in sys.argv[1:] or not sys.argv[1:]


def take(
    browser: Browser, origin: str, scheme: str, size: tuple[int, int], views: Mapping[str, Callable[[Page], None]]
) -> None:
    context = browser.new_context(
        base_url=origin,
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=SCALE,
        locale="en-US",
        viewport={"width": size[0], "height": size[1]},
    )
    page = context.new_page()
    for name, show in views.items():
        if not wanted(name):
            continue
        show(page)
        page.wait_for_load_state("networkidle")
        page.evaluate("document.activeElement.blur()")
        picture = Image.open(io.BytesIO(page.screenshot()))
        picture.convert("RGB").save(TARGET / f"{name}-{scheme}.webp", quality=QUALITY, method=6)
    context.close()


def sign_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Key", exact=True).fill(OPERATOR)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("button", name="Send", exact=True).wait_for()


FIGURES = """async () => {
    const shifts = await new Promise((resolve) => {
        let sum = 0;
        const observer = new PerformanceObserver(() => undefined);
        observer.observe({type: "layout-shift", buffered: true});
        setTimeout(() => { for (const {value} of observer.takeRecords()) sum += value; resolve(sum); }, 500);
    });
    const loaded = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
    return [paint, loaded.reduce((sum, {transferSize}) => sum + transferSize, 0), shifts];
}"""


def print_figures(browser: Browser, origin: str) -> None:
    """Print the first contentful paint, the transferred bytes and the layout shift of each view, with empty caches."""
    print("view         first paint (ms)   transfer (kB)   layout shift")  # noqa: T201
    for width, height in (DESKTOP, PHONE):
        page = browser.new_page(base_url=origin, viewport={"width": width, "height": height})
        sign_in(page)
        for name in ("playground", "pictures", "apps", "traffic", "keys"):
            page.goto(f"/#{name}")
            page.context.new_cdp_session(page).send("Network.clearBrowserCache")
            page.reload()
            page.wait_for_load_state("networkidle")
            paint, transfer, shift = page.evaluate(FIGURES)
            print(f"{name:<10} {paint:>18.0f} {transfer / 1000:>15.1f} {shift:>14.3f}")  # noqa: T201
        page.close()


def view(page: Page, name: str) -> None:
    """Show a view, after the sign-in of a new tab."""
    if page.url == "about:blank":
        sign_in(page)
    page.goto(f"/#{name}")
    page.reload()


def first_run(page: Page) -> None:
    page.goto("/")
    page.get_by_role("region", name="First steps").wait_for()


def asked_for_a_key(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Key", exact=True).wait_for()


def answered(page: Page, question: str, count: int) -> None:
    page.get_by_role("textbox", name="Question", exact=True).fill(question)
    page.keyboard.press("Enter")
    page.locator("article.answer[aria-busy=false]").nth(count - 1).wait_for()


def playground(page: Page) -> None:
    view(page, "playground/demo-chat")
    page.get_by_role("button", name="What can you do?").click()
    page.locator("article.answer[aria-busy=false]").wait_for()
    answered(page, "THINK about the sea and DRAW a lighthouse at dusk.", 2)
    page.wait_for_function("document.querySelector('.answer img')?.naturalWidth > 0")


def tools(page: Page) -> None:
    view(page, "playground/demo-agent-chat")
    page.get_by_text("Tools", exact=True).click()
    page.get_by_role("button", name="Insert an example").click()
    answered(page, "What does get_weather say about Paris?", 1)
    page.get_by_label("Result of get_weather").fill("24 °C, sunny")


def paused(page: Page) -> None:
    view(page, "playground/demo-advanced-chat")
    answered(page, "Please PAUSE before you publish.", 1)
    page.get_by_label("note").fill("Approved, with the new title.")


def pictures(page: Page) -> None:
    view(page, "pictures")
    for prompt in ("A valley in the morning", "A lighthouse at dusk"):
        page.get_by_label("Prompt", exact=True).fill(prompt)
        page.get_by_label("X-Output-Format").select_option("webp")
        page.get_by_label("X-Replicate-Seed").fill("7")
        with page.expect_response("**/v1/stored_pictures?*"):
            page.get_by_role("button", name="Generate", exact=True).click()
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


def apps(page: Page) -> None:
    view(page, "apps")
    page.locator(".card .badge").first.wait_for()


def traffic(page: Page) -> None:
    view(page, "playground/demo-chat")
    answered(page, "Hello!", 1)
    answered(page, "ERROR:rate", 2)
    view(page, "traffic")
    page.locator("canvas").nth(1).wait_for()


def keys(page: Page) -> None:
    view(page, "keys")
    page.get_by_label("Keys", exact=True).wait_for()


def phone_chat(page: Page) -> None:
    view(page, "playground/demo-chat")
    page.get_by_role("button", name="What can you do?").click()
    page.locator("article.answer[aria-busy=false]").wait_for()


DESKTOP_VIEWS = {
    "playground": playground,
    "tools": tools,
    "paused": paused,
    "pictures": pictures,
    "apps": apps,
    "traffic": traffic,
    "keys": keys,
}
PHONE_VIEWS = {"phone-playground": phone_chat, "phone-traffic": traffic}


if __name__ == "__main__":
    main()
