"""The pictures of the console in a real browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo.replicate import DemoReplicate
from tests.api.servers import ProxyServer
from tests.console.conftest import OpenPage
from tests.console.pages import check

CID = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


PROMPT = "A fox"


def write_prompt(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Generate", exact=True).click()


def generate(page: Page, prompt: str) -> Locator:
    """Generate a picture, and return its place in the gallery, which shows the newest first."""
    page.wait_for_load_state("networkidle")
    with page.expect_response("**/v1/stored_pictures?*") as gallery:
        write_prompt(page, prompt)
        expect(page.get_by_alt_text("Picture 1")).to_be_visible()
    name = gallery.value.json()["data"][0]["name"]
    return page.locator(".gallery li").filter(has=page.locator(f"a[href$='{name}']"))


def unfold_parameters(page: Page) -> None:
    parameters = page.locator("details:has(> .parameters)")
    parameters.wait_for()
    if parameters.get_attribute("open") is None:
        parameters.locator("summary").click()


def test_a_generated_picture_appears_in_the_gallery_and_is_deleted(
    open_page: OpenPage, replicate: DemoReplicate, axe: str, settings: Settings
) -> None:
    page = open_page("pictures")
    unfold_parameters(page)
    page.get_by_label("X-Replicate-Seed").fill("7")
    page.get_by_label("X-Output-Format").select_option("webp")
    unsupported = page.get_by_label("X-Replicate-Style-Preset")
    expect(unsupported).to_be_disabled()
    expect(unsupported).to_have_accessible_description("The model does not support it.")
    stored = generate(page, PROMPT)
    stored.locator("summary").click()
    expect(stored).to_contain_text("stability-ai/sdxl")
    expect(stored).to_contain_text("7")
    assert replicate.log.predictions[-1].inputs["seed"] == 7
    check(page, axe)
    page.on("dialog", lambda dialog: dialog.accept())
    stored.get_by_role("button", name="Delete").click()
    expect(stored).to_have_count(0)
    assert list(Path(settings.image_storage_dir).rglob("*.webp")) == []


def test_a_picture_is_edited_with_a_mask(open_page: OpenPage, replicate: DemoReplicate, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "sky.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "mask.png")
    page = open_page("pictures")
    page.get_by_text("Edit a picture").click()
    page.get_by_label("Picture", exact=True).set_input_files(tmp_path / "sky.png")
    page.get_by_label("Mask").set_input_files(tmp_path / "mask.png")
    generate(page, PROMPT)
    prediction = replicate.log.predictions[-1]
    assert prediction.inputs["image"].startswith("data:image/png")
    assert prediction.inputs["mask"].startswith("data:image/png")


def test_a_running_picture_shows_its_progress_and_is_canceled(open_page: OpenPage, axe: str) -> None:
    page = open_page("pictures")
    write_prompt(page, f"{PROMPT} SLOW:100")
    expect(page.get_by_label("Generating")).to_be_visible()
    check(page, axe)
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_visible()
    expect(page.get_by_label("Generating")).to_have_count(0)


def test_an_error_is_shown_and_the_form_stays(open_page: OpenPage) -> None:
    page = open_page("pictures", failures=1)
    write_prompt(page, "NSFW")
    expect(page.get_by_role("alert")).to_contain_text("content_policy_violation")
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("NSFW")


class Node(BaseHTTPRequestHandler):
    """An IPFS node that fails until ``works`` is set on its server."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        works = self.server.works.is_set()  # type: ignore[attr-defined]
        body = f'{{"Name":"picture","Hash":"{CID}","Size":"1"}}\n'.encode() if works else b"full"
        self.send_response(200 if works else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class TestAServerWithAnIpfsNode:
    @pytest.fixture(scope="class")
    @classmethod
    def node(cls) -> Iterator[ThreadingHTTPServer]:
        with ThreadingHTTPServer(("127.0.0.1", 0), Node) as server:
            server.works = threading.Event()  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    @pytest.fixture(scope="class")
    @classmethod
    def proxy(cls, settings: Settings, node: ThreadingHTTPServer) -> Iterator[ProxyServer]:
        uploading = replace(
            settings,
            ipfs_upload_url=f"http://127.0.0.1:{node.server_port}/api/v0/add",
            ipfs_gateway_url="https://ipfs.example/ipfs/{cid}",
        )
        with ProxyServer(uploading) as running:
            yield running

    def test_sends_a_picture_again(self, open_page: OpenPage, node: ThreadingHTTPServer, axe: str) -> None:
        node.works.clear()  # type: ignore[attr-defined]
        page = open_page("pictures")
        stored = generate(page, PROMPT)
        stored.locator("summary").click()
        send = stored.get_by_role("button", name="Send to IPFS")
        expect(send).to_be_visible()
        check(page, axe)
        node.works.set()  # type: ignore[attr-defined]
        send.click()
        expect(stored).to_contain_text("bafk")
