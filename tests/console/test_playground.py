"""The playground in a real browser, used as a person uses it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoServer
from openai_dify_proxy_demo.log import LoggedRun
from tests.api.servers import ProxyServer, app_settings
from tests.console.conftest import OpenPage
from tests.console.pages import answer, ask, check, open_setting, open_settings


def last_run(demo: DemoServer) -> LoggedRun:
    return demo.log.runs[-1]


def test_an_answer_streams_with_its_timing_price_program_and_frames(open_page: OpenPage, axe: str) -> None:
    page = open_page()
    expect(page.get_by_label("Request in curl")).to_contain_text("Hello!")
    ask(page, "SAY<<**Bold** and `code` it's>>")
    answer(page)
    shown = page.get_by_role("article", name="Answer", exact=True)
    expect(shown.locator("strong")).to_have_text("Bold")
    expect(shown.locator("code")).to_have_text("code")
    facts = page.get_by_label("Request", exact=True)
    for fact in ("First text", "USD", "stop"):
        expect(facts).to_contain_text(fact)
    for language in ("curl", "Python", "Node", "LangChain"):
        page.get_by_role("button", name=language, exact=True).click()
        code = page.get_by_label(f"Request in {language}", exact=True)
        expect(code).to_contain_text(page.evaluate("location.origin") + "/v1")
        expect(code).to_contain_text("**Bold**")
    page.get_by_text("raw frames").click()
    frames = page.get_by_label("Frames").get_by_role("listitem")
    expect(frames.first).to_contain_text("chat.completion.chunk")
    expect(frames.last).to_contain_text("[DONE]")
    check(page, axe)


def test_questions_continue_and_are_edited_and_answers_regenerated(open_page: OpenPage, demo: DemoServer) -> None:
    page = open_page()
    page.get_by_role("button", name="What can you do?").click()
    expect(answer(page)).to_contain_text("THINK")
    ask(page, "RECALL")
    expect(answer(page, 2)).to_contain_text('["user", "What can you do?"]')
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edited question").fill("SAY<<changed>>")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("article", name="Question", exact=True).first).to_contain_text("What can you do?")
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edited question").fill("SAY<<three>>")
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("article", name="Answer", exact=True)).to_have_count(1)
    expect(answer(page)).to_have_text("three")
    runs = len(demo.log.runs)
    page.get_by_role("button", name="Regenerate").click()
    demo.log.wait(lambda log: len(log.runs) == runs + 1)
    expect(answer(page)).to_have_text("three")


def test_a_running_answer_is_stopped_in_dify(open_page: OpenPage, demo: DemoServer) -> None:
    stopped = len(demo.log.stopped_runs)
    page = open_page()
    ask(page, "SLOW:200x200")
    expect(page.get_by_role("article", name="Answer", exact=True)).to_contain_text("1")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    demo.log.wait(lambda log: len(log.stopped_runs) > stopped)


def test_reasoning_is_folded_and_sources_and_pictures_are_shown(open_page: OpenPage, axe: str) -> None:
    page = open_page()
    ask(page, "THINK CITE DRAW")
    answer(page)
    shown = page.get_by_role("article", name="Answer", exact=True)
    reasoning = shown.locator("details.reasoning")
    expect(reasoning).not_to_have_attribute("open", "")
    reasoning.locator("summary").click()
    expect(reasoning.locator(".markdown")).not_to_be_empty()
    shown.get_by_text("2 sources").click()
    expect(shown.locator(".citations li")).to_have_count(2)
    picture = shown.locator("img")
    expect(picture).to_have_count(1)
    page.wait_for_function("document.querySelector('.answer img').naturalWidth > 0")
    check(page, axe)


DROP = """([data, name, type]) => {
    const files = new DataTransfer();
    files.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name, {type}));
    return files;
}"""


PASTE = """(element, clipboardData) =>
    element.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true}))"""


def test_files_are_picked_dropped_pasted_and_removed(open_page: OpenPage, axe: str, tmp_path: Path) -> None:
    page = open_page()
    (tmp_path / "picked.txt").write_text("picked")
    page.get_by_label("Files", exact=True).set_input_files(tmp_path / "picked.txt")
    red, output = Image.new("RGB", (8, 8), "red"), io.BytesIO()
    red.save(output, "PNG")
    data = base64.b64encode(output.getvalue()).decode()
    composer = page.locator(".composer")
    dropped = page.evaluate_handle(DROP, [data, "dropped.png", "image/png"])
    composer.dispatch_event("dragover", {"dataTransfer": dropped})
    expect(composer).to_have_class(re.compile("dragging"))
    composer.dispatch_event("drop", {"dataTransfer": dropped})
    expect(composer).not_to_have_class(re.compile("dragging"))
    pasted = page.evaluate_handle(DROP, [data, "pasted.png", "image/png"])
    page.get_by_role("textbox", name="Question", exact=True).evaluate(PASTE, pasted)
    for name in ("picked.txt", "dropped.png", "pasted.png"):
        expect(composer.get_by_text(name)).to_be_visible()
    check(page, axe)
    page.get_by_role("button", name="Remove dropped.png").click()
    ask(page, "What are these?")
    expect(answer(page)).to_contain_text("image/png")
    expect(answer(page)).to_contain_text("text/plain")
    expect(page.get_by_role("img", name="pasted.png")).to_be_visible()


def test_a_person_answers_a_tool_call(open_page: OpenPage, axe: str) -> None:
    page = open_page()
    open_setting(page, "Tools")
    page.get_by_role("button", name="Insert an example").click()
    ask(page, "What does get_weather say about Paris?")
    expect(page.get_by_text('"city": "Paris"')).to_be_visible()
    check(page, axe)
    page.get_by_label("Result of get_weather").fill("sunny")
    page.get_by_role("button", name="Answer the call").click()
    expect(answer(page, 2)).to_contain_text("The result of get_weather is: sunny")
    expect(page.get_by_role("article", name="Tool result")).to_contain_text("sunny")


def test_an_answer_follows_a_schema(open_page: OpenPage, demo: DemoServer) -> None:
    page = open_page()
    open_setting(page, "Answer schema")
    schema = page.get_by_label("A JSON schema")
    schema.fill("{")
    runs = len(demo.log.runs)
    ask(page, "days=3")
    expect(page.get_by_role("alert")).to_contain_text("The schema is not valid JSON")
    assert len(demo.log.runs) == runs, "nothing is sent"
    schema.fill("")
    page.get_by_role("button", name="Insert an example").click()
    ask(page, "days=3")
    expect(answer(page)).to_have_text(re.compile(r'\{"days": ?3\}'))


def test_a_system_prompt_reaches_the_app(open_page: OpenPage, demo: DemoServer) -> None:
    page = open_page()
    open_setting(page, "System prompt")
    page.get_by_label("Instructions for the app").fill("Answer in French.")
    ask(page, "Hello")
    answer(page)
    assert "Answer in French." in last_run(demo).question


class TestAnAppWithAForm:
    @pytest.fixture(scope="class")
    @classmethod
    def proxy(cls, settings: Settings, demo: DemoServer) -> Iterator[ProxyServer]:
        app = app_settings("form", "app-demo-workflow-form", demo.url, input_variable="question")
        with ProxyServer(replace(settings, apps={"form": app})) as running:
            yield running

    def test_gets_the_values_of_its_inputs(self, open_page: OpenPage, demo: DemoServer, axe: str) -> None:
        page = open_page()
        open_settings(page)
        page.get_by_label("Subject").fill("Weather")
        page.get_by_label("Language").select_option("fr")
        page.get_by_label("Words").fill("12")
        check(page, axe)
        ask(page, "Hello")
        answer(page)
        assert last_run(demo).inputs == {"subject": "Weather", "question": "Hello", "language": "fr", "words": 12}


@pytest.mark.parametrize("keyword", ["ERROR:rate", "MIDERROR:rate"])
def test_an_error_is_shown_with_its_code(open_page: OpenPage, keyword: str, axe: str) -> None:
    page = open_page(failures=1 if keyword == "ERROR:rate" else 0)
    ask(page, keyword)
    expect(page.get_by_role("alert")).to_contain_text("rate_limit_exceeded")
    check(page, axe)


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


def test_the_form_of_a_paused_run_is_a_form(open_page: OpenPage, axe: str) -> None:
    page = open_page("playground/demo-advanced-chat")
    ask(page, "PAUSE")
    form = page.get_by_role("form", name="Paused run")
    expect(form).to_contain_text("May I continue?")
    check(page, axe)
    form.get_by_label("note").fill("fine with me")
    form.get_by_role("button", name="Yes").click()
    expect(answer(page, 2)).to_contain_text("fine with me")
    expect(form).to_be_hidden()


LONG = "line\n" * 80


def test_the_end_stays_in_view_until_the_person_scrolls_up(open_page: OpenPage) -> None:
    page = open_page()
    ask(page, f"SAY<<{LONG}>>")
    answer(page)
    expect(page.get_by_role("button", name="Regenerate")).to_be_in_viewport()
    scroll(page, 0)
    page.get_by_role("button", name="Edit").wait_for()
    expect(page.get_by_role("button", name="Regenerate")).not_to_be_in_viewport()
    ask(page, "DRAW")
    answer(page, 2)
    expect(page.get_by_role("button", name="Regenerate")).to_be_in_viewport()


def scroll(page: Page, top: int) -> None:
    page.locator(".turns").evaluate(
        "(box, top) => new Promise((done) => { box.onscroll = done; box.scrollTop = top; })", top
    )
