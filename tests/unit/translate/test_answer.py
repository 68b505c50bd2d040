from __future__ import annotations

import pytest

from openai_dify_proxy.errors import StreamCut
from openai_dify_proxy.events import (
    Citation,
    Citations,
    Event,
    FileProduced,
    ReasoningDelta,
    RefusalDelta,
    Repairs,
    StepChanged,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnFinished,
    Usage,
)
from openai_dify_proxy.translate.answer import Answer, file_link
from openai_dify_proxy.translate.turn_request import HistoryMessage
from tests.tool_events import PATCH, WEATHER, events_of_calls

IMAGE = FileProduced("http://dify/files/cat.png?sign=s", "image", "cat.png")
REPORT = FileProduced("http://dify/files/r.pdf", "document", "re[po]rt.pdf")
NAMELESS = FileProduced("http://dify/files/x", "custom")


def folded(*events: Event) -> Answer:
    answer = Answer()
    answer.add(events)
    return answer


def test_an_answer_joins_its_deltas() -> None:
    citations = (Citation("Doc", None, {"position": 1}),)
    answer = folded(
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        TextDelta("Hel"),
        TextDelta("lo."),
        Citations(citations),
        TurnFinished("length", Usage(1, 2, 3)),
    )
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("Hello.", "hm", "length")
    assert (answer.usage, answer.citations, answer.error) == (Usage(1, 2, 3), citations, None)


def test_an_empty_answer() -> None:
    answer = folded()
    assert (answer.text, answer.reasoning, answer.finish_reason, answer.error) == ("", "", None, None)


def test_a_failure() -> None:
    error = StreamCut("cut")
    answer = folded(TextDelta("Hel"), TurnFailed(error))
    assert (answer.text, answer.error, answer.finish_reason) == ("Hel", error, None)


@pytest.mark.parametrize("moderated", [True, False])
def test_a_replacement(moderated: bool) -> None:
    answer = folded(TextDelta("bad"), TextReplaced("Preset.", moderated), TextDelta(" More."), TurnFinished("stop"))
    assert (answer.text, answer.replaced) == ("Preset. More.", moderated)


def test_a_moderation_is_remembered() -> None:
    assert folded(TextReplaced("a", moderated=True), TextReplaced("b", moderated=False)).replaced


def test_an_answer_that_differs_from_its_deltas() -> None:
    assert folded(TextDelta("abab"), TurnFinished("stop", answer="ab")).text == "ab"
    assert folded(TextDelta("abab"), TurnFinished("stop", answer="")).text == ""
    text = folded(TextDelta("abab"), NAMELESS, TurnFinished("stop", answer="ab")).text
    assert text == "ab\n\n[custom](http://dify/files/x)"


def test_steps_are_lines_of_reasoning() -> None:
    steps = [
        StepChanged("Search", "started"),
        StepChanged("Search", "retrying"),
        StepChanged("Search", "succeeded"),
        StepChanged("Draw", "failed"),
    ]
    assert folded(*steps).reasoning == "→ Search\n↻ Search\n✓ Search\n✗ Draw\n"


# A file, whether text comes before it, and the Markdown.
LINKS: dict[str, tuple[FileProduced, bool, str]] = {
    "an image": (IMAGE, False, "![cat.png](http://dify/files/cat.png?sign=s)"),
    "an image after text": (IMAGE, True, "\n\n![cat.png](http://dify/files/cat.png?sign=s)"),
    "another file, whose brackets would end its name": (REPORT, True, "\n\n[report.pdf](http://dify/files/r.pdf)"),
    "a file without a name": (NAMELESS, False, "[custom](http://dify/files/x)"),
    "a file that the text links to": (FileProduced("http://dify/files/x", "image", linked=True), True, ""),
}


@pytest.mark.parametrize(("file", "after_text", "link"), LINKS.values(), ids=LINKS)
def test_links_to_files(file: FileProduced, after_text: bool, link: str) -> None:
    assert file_link(file, after_text) == link


def test_files_are_linked_in_the_text_once() -> None:
    answer = folded(TextDelta("Here:"), IMAGE, NAMELESS, FileProduced("http://dify/files/y", "image", linked=True))
    assert answer.text == ("Here:\n\n![cat.png](http://dify/files/cat.png?sign=s)\n\n[custom](http://dify/files/x)")
    assert [file.url for file in answer.files] == [IMAGE.url, NAMELESS.url, "http://dify/files/y"]


def test_a_link_after_no_text_begins_the_answer() -> None:
    assert folded(TextReplaced("", moderated=False), NAMELESS).text == "[custom](http://dify/files/x)"


def test_a_file_that_the_text_links_to_adds_no_text() -> None:
    linked = FileProduced("https://dify.example/a.png", "image", linked=True)
    assert not folded(linked).has_text
    assert folded(TextDelta("See a.png"), linked).has_text


def test_the_reply_has_the_text_and_the_calls() -> None:
    answer = folded(TextDelta("Hm."), *events_of_calls(WEATHER, PATCH), TurnFinished("tool_calls", repairs=Repairs(1)))
    assert answer.reply == HistoryMessage("assistant", "Hm.", (WEATHER, PATCH))
    assert answer.reply_with("H") == HistoryMessage("assistant", "H", (WEATHER, PATCH))
    assert answer.repairs == Repairs(1)
    assert not answer.calling
    assert folded(events_of_calls(WEATHER)[0]).calling


def test_the_reply_without_text_is_the_refusal() -> None:
    answer = folded(RefusalDelta("I can"), RefusalDelta("not."))
    assert (answer.refusal, answer.reply) == ("I cannot.", HistoryMessage("assistant", "I cannot."))
    assert folded().refusal is None
