"""The playground in a real browser, used as a person uses it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from openai_dify_proxy_demo import DemoServer
from tests.console.conftest import OpenPage


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Question", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def answer(page: Page, count: int = 1) -> Locator:
    """Return the text of the last answer, once there are ``count`` and none is running."""
    finished = page.locator("article.answer[aria-busy=false]")
    expect(finished).to_have_count(count)
    return finished.last.locator(".markdown").last


def test_an_answer_streams_with_its_timing_and_its_price(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, "SAY<<**Bold** and `code`>>")
    shown = page.get_by_role("article", name="Answer", exact=True)
    expect(shown.locator("strong")).to_have_text("Bold")
    expect(shown.locator("code")).to_have_text("code")
    facts = page.get_by_label("Request", exact=True)
    expect(facts).to_contain_text("First text")
    expect(facts).to_contain_text("USD")
    expect(facts).to_contain_text("stop")


def test_a_second_question_continues_the_conversation(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, "One question")
    answer(page)
    ask(page, "RECALL")
    expect(answer(page, 2)).to_contain_text('["user", "One question"]')


def test_an_edited_question_starts_anew_from_there(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, "SAY<<one>>")
    answer(page)
    ask(page, "SAY<<two>>")
    answer(page, 2)
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edited question").fill("SAY<<three>>")
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("article", name="Answer", exact=True)).to_have_count(1)
    expect(answer(page)).to_have_text("three")


def test_an_answer_is_regenerated(open_page: OpenPage, demo: DemoServer) -> None:
    page = open_page()
    ask(page, "SAY<<again>>")
    answer(page)
    page.get_by_role("button", name="Regenerate").click()
    demo.log.wait(lambda log: len(log.runs) == 2)
    expect(answer(page)).to_have_text("again")


def test_a_running_answer_is_stopped_in_dify(open_page: OpenPage, demo: DemoServer) -> None:
    page = open_page()
    ask(page, "SLOW:200x200")
    expect(page.get_by_role("article", name="Answer", exact=True)).to_contain_text("1")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    demo.log.wait(lambda log: log.stopped_runs)


def test_reasoning_is_folded(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, "THINK SAY<<done>>")
    answer(page)
    details = page.get_by_role("article", name="Answer", exact=True).locator("details.reasoning")
    expect(details).not_to_have_attribute("open", "")
    details.locator("summary").click()
    expect(details.locator(".markdown")).not_to_be_empty()


def test_citations_are_listed(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, "CITE")
    answer(page)
    expect(page.locator("details.citations summary")).to_contain_text("source")


def test_an_app_sees_an_attached_picture(open_page: OpenPage, tmp_path: Path) -> None:
    picture = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    page = open_page()
    page.get_by_label("Files", exact=True).set_input_files(picture)
    expect(page.get_by_text("red.png")).to_be_visible()
    ask(page, "What is this?")
    expect(answer(page)).to_contain_text("image/png")


def test_a_person_answers_a_tool_call(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_text("Tools", exact=True).click()
    page.get_by_label("A JSON list of tools").fill(
        json.dumps(
            {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            }
        )
    )
    ask(page, "What does get_weather say about Paris?")
    expect(page.get_by_text('"city": "Paris"')).to_be_visible()
    page.get_by_label("Result of get_weather").fill("sunny")
    page.get_by_role("button", name="Answer the call").click()
    expect(page.get_by_role("article", name="Answer", exact=True).last).to_contain_text(
        "The result of get_weather is: sunny"
    )


def test_an_answer_follows_a_schema(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_text("Answer schema").click()
    page.get_by_label("A JSON schema").fill('{"type": "object", "properties": {"days": {"type": "integer"}}}')
    ask(page, "days=3")
    expect(answer(page)).to_have_text(re.compile(r'\{"days": ?3\}'))


def test_invalid_json_is_reported_and_nothing_is_sent(open_page: OpenPage, demo: DemoServer) -> None:
    page = open_page()
    page.get_by_text("Tools", exact=True).click()
    page.get_by_label("A JSON list of tools").fill("{")
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text("The list of tools is not valid JSON")
    assert not demo.log.runs


def test_inputs_of_the_app_are_a_form(open_page: OpenPage, demo: DemoServer) -> None:
    page = open_page("playground/demo-workflow")
    page.get_by_label("language").fill("fr")
    ask(page, "Hello")
    answer(page)
    (run,) = demo.log.runs
    assert run.inputs["language"] == "fr"


@pytest.mark.parametrize("keyword", ["ERROR:rate", "MIDERROR:rate"])
def test_an_error_is_shown_with_its_code(open_page: OpenPage, keyword: str) -> None:
    page = open_page(failures=1 if keyword == "ERROR:rate" else 0)
    ask(page, keyword)
    expect(page.get_by_role("alert")).to_contain_text("rate")


@pytest.mark.parametrize("language", ["curl", "Python", "Node", "LangChain"])
def test_the_request_is_shown_as_a_program(open_page: OpenPage, language: str) -> None:
    page = open_page()
    ask(page, "SAY<<it's>>")
    answer(page)
    page.get_by_role("button", name=language, exact=True).click()
    code = page.get_by_label(f"Request in {language}", exact=True).inner_text()
    assert page.evaluate("location.origin") + "/v1" in code
    assert "demo-chat" in code


def test_text_of_a_model_loads_nothing_and_runs_nothing(open_page: OpenPage) -> None:
    hostile = (
        "![remote](http://192.0.2.1/track.png) <img src='http://192.0.2.2/x.png' onerror='document.title=1'> "
        "<script>document.title = 'owned'</script> <iframe src='http://192.0.2.3/'></iframe> "
        "<a href='javascript:document.title=2'>click</a> <style>body { display: none }</style>"
    )
    page = open_page()
    ask(page, f"SAY<<{hostile}>>")
    answer(page)
    shown = page.get_by_role("article", name="Answer", exact=True)
    expect(shown.get_by_role("link", name="remote")).to_have_attribute("href", "http://192.0.2.1/track.png")
    assert shown.locator("img[src], script, iframe, style, a[href^=javascript]").count() == 0
    expect(page).to_have_title("Playground – OpenAI Dify Proxy")


def test_the_form_of_a_paused_run_is_a_form(open_page: OpenPage) -> None:
    page = open_page("playground/demo-advanced-chat")
    ask(page, "PAUSE")
    form = page.get_by_role("form", name="Paused run")
    expect(form).to_contain_text("May I continue?")
    form.get_by_label("note").fill("fine with me")
    form.get_by_role("button", name="Yes").click()
    expect(answer(page, 2)).to_contain_text("fine with me")
    expect(form).to_be_hidden()
