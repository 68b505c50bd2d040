"""The pictures of the console in a real browser."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from openai_dify_proxy_demo.replicate import DemoReplicate
from tests.console.conftest import OpenPage


def generate(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_alt_text("Picture 1")).to_be_visible()


def test_a_generated_picture_appears_in_the_gallery(open_page: OpenPage, replicate: DemoReplicate) -> None:
    page = open_page("pictures")
    page.get_by_label("X-Replicate-Seed").fill("7")
    page.get_by_label("X-Output-Format").select_option("webp")
    generate(page, "A fox")
    stored = page.locator(".gallery li")
    expect(stored).to_have_count(1)
    stored.locator("summary").click()
    expect(stored).to_contain_text("stability-ai/sdxl")
    expect(stored).to_contain_text("7")
    (prediction,) = replicate.log.predictions
    assert prediction.inputs["seed"] == 7


def test_parameters_that_the_model_does_not_take_are_disabled_with_the_reason(open_page: OpenPage) -> None:
    page = open_page("pictures")
    field = page.get_by_label("X-Replicate-Style-Preset")
    expect(field).to_be_disabled()
    expect(field).to_have_accessible_description("The model does not support it.")


def test_a_picture_is_edited_with_a_mask(open_page: OpenPage, replicate: DemoReplicate, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "sky.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "mask.png")
    page = open_page("pictures")
    page.get_by_text("Edit a picture").click()
    page.get_by_label("Picture", exact=True).set_input_files(tmp_path / "sky.png")
    page.get_by_label("Mask").set_input_files(tmp_path / "mask.png")
    generate(page, "A red sky")
    (prediction,) = replicate.log.predictions
    assert prediction.inputs["image"].startswith("data:image/png")
    assert prediction.inputs["mask"].startswith("data:image/png")


def test_a_picture_is_deleted(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page("pictures")
    generate(page, "A fox")
    stored = page.locator(".gallery li")
    stored.locator("summary").click()
    page.on("dialog", lambda dialog: dialog.accept())
    stored.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Nothing stored yet")).to_be_visible()
    assert [path.name for path in tmp_path.glob("*.png")] == []


def test_an_error_is_shown_and_the_form_stays(open_page: OpenPage) -> None:
    page = open_page("pictures", failures=1)
    page.get_by_label("Prompt", exact=True).fill("NSFW")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("content_policy_violation")
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("NSFW")
