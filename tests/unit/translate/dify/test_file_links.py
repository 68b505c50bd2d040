"""Links to Dify's files: their form, and their replacement in text that is cut anywhere."""

from __future__ import annotations

import gc

import pytest

from openai_dify_proxy.events import (
    Citations,
    Event,
    FileProduced,
    FixedTextDelta,
    ReasoningDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    TurnFinished,
)
from openai_dify_proxy.translate.dify.file_links import FileLinks, LinkRewriter
from openai_dify_proxy.translate.dify.signed_links import SignedLink, SignedLinks, is_internal

ID = "6494c949-de7b-42ce-a28c-374bde984d1c"
QUERY = "?timestamp=1795883998&nonce=50f0759451affebf29cda7fd715139e2&sign=p9n8E8aAF_hIEd5cMGVrAB3E0GU5Dtlf27dQfGm5jzA="
PICTURE = f"/files/tools/{ID}.png{QUERY}"
PREVIEW = f"/files/{ID}/file-preview{QUERY}"
LINKS = SignedLinks("https://dify.example.com")


def numbered(link: SignedLink, _file: FileProduced | None) -> str:
    return f"<{link.path.removeprefix('/files/')}>"


def rewritten(*pieces: str, links: SignedLinks = LINKS) -> str:
    rewriter = LinkRewriter(links, numbered)
    return "".join([rewriter.feed(piece) for piece in pieces]) + rewriter.finish()


OURS = {
    "relative": (PICTURE, f"<tools/{ID}.png>"),
    "the configured host": (f"https://dify.example.com{PICTURE}", f"<tools/{ID}.png>"),
    "another scheme and port of it": (f"http://DIFY.example.com:8080{PICTURE}", f"<tools/{ID}.png>"),
    "a service of a network of containers": (f"http://api:5001{PICTURE}", f"<tools/{ID}.png>"),
    "a loopback address": (f"http://127.0.0.1:15001{PREVIEW}", f"<{ID}/file-preview>"),
    "an address of version 6": (f"http://[::1]:5001{PREVIEW}", f"<{ID}/file-preview>"),
    "a preview of a picture": (
        f"/files/{ID}/image-preview{QUERY}",
        f"<{ID}/image-preview>",
    ),
}


@pytest.mark.parametrize(("link", "replaced"), OURS.values(), ids=OURS)
@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("![a](", ")"), ("see ", "."), ('<img src="', '">'), ("图片", "。"), ("a\n", "\nb")],
)
def test_a_link_of_dify_is_replaced(link: str, replaced: str, before: str, after: str) -> None:
    assert rewritten(f"{before}{link}{after}") == f"{before}{replaced}{after}"
    assert rewritten(*f"{before}{link}{after}") == f"{before}{replaced}{after}", "cut into characters"


@pytest.mark.parametrize(
    "text",
    [
        f"https://files.example.org{PICTURE}",
        f"https://dify.example.com.evil.example{PICTURE}",
        f"https://user@dify.example.com{PICTURE}",
        f"http://[::1{PICTURE}",
        f"http://:5001{PICTURE}",
        f"https://other.example/?next={PICTURE}",
        f"https://other.example/?next=http://api:5001{PICTURE}",
        f"https://other.example{PICTURE}",
        f"//other.example{PICTURE}",
        f"ftp:{PICTURE}",
        f"my{PICTURE}",
        f"./{PICTURE}",
        f"/files/../{ID}/file-preview{QUERY}",
        f"/files/tools/../../console/api/{ID}{QUERY}",
        f"/files/tools/{ID}.png%2f..{QUERY}",
        f"/files/tools/{ID}{QUERY}",
        f"/files/tools/{ID[:-1]}.png{QUERY}",
        f"/files/tools/{ID}0.png{QUERY}",
        f"/files/tools/{ID}.{'p' * 11}{QUERY}",
        f"/files/{ID}/webapp-logo{QUERY}",
        f"/v1/datasets/{ID}{QUERY}",
        f"/files/tools/{ID}.png",
        f"/files/tools/{ID}.png?timestamp=1",
        f"/files/tools/{ID}.png?sign=1&nonce=2&timestamp=3",
        f"{PICTURE}&as_attachment=true",
        f"{PICTURE}#part",
        f"/files/tools/{ID}.png?timestamp=1&nonce=2&sign={'s' * 129}",
        "and/or, https://example.com/a/b?c=d, half of ht",
        "http",
        "https://" + "a" * 300,
        "",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert rewritten(text) == text
    assert rewritten(*text) == text


def test_links_below_the_path_of_a_configured_address_are_its_own() -> None:
    links = SignedLinks("https://example.com/dify/")
    for link in (PICTURE, f"/dify{PICTURE}", f"https://example.com/dify{PICTURE}", f"http://api:5001{PICTURE}"):
        assert rewritten(link, links=links) == f"<tools/{ID}.png>"
    assert rewritten(f"/other{PICTURE}", links=links) == f"/other{PICTURE}"


@pytest.mark.parametrize(
    ("host", "internal"),
    [
        ("api", True),
        ("localhost", True),
        ("nginx.dify.svc", True),
        ("dify.svc.cluster.local", True),
        ("host.docker.internal", True),
        ("10.0.0.7", True),
        ("192.168.1.2", True),
        ("fd00::1", True),
        ("93.184.215.14", False),
        ("example.com", False),
        ("local.example.com", False),
    ],
)
def test_internal_hosts(host: str, internal: bool) -> None:
    assert is_internal(host) is internal


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("with", "with"),
        ("and/or", "and/or"),
        ("see h", "see "),
        ("see https:", "see "),
        ("see https://dify.exa", "see "),
        ("see https://example.com/", "see https://example.com/"),
        ("see /fil", "see "),
        ("see /fill", "see /fill"),
        (f"see {PICTURE[:80]}", "see "),
        (f"see {PICTURE}", "see "),
    ],
)
def test_only_what_may_become_a_link_is_held_back(text: str, sent: str) -> None:
    rewriter = LinkRewriter(LINKS, numbered)
    assert rewriter.feed(text) == sent


def test_text_without_a_slash_is_not_read() -> None:
    links = FileLinks(LINKS, numbered)
    for text in ("a word", "", "a"):
        events: list[Event] = [TextDelta(text)]
        assert links.filter(events) is events
    assert links.filter([TextDelta(PICTURE)]) == [TextDelta(PICTURE)], "it continues a word"
    assert links.filter([TextDelta(" (h")]) == [TextDelta(" (")]
    assert links.filter([TextDelta("ello")]) == [TextDelta("hello")]


def test_a_link_that_has_no_replacement_stays() -> None:
    rewriter = LinkRewriter(LINKS, lambda link, _file: None if "tools" in link.path else "ours")
    assert rewriter.feed(f"{PICTURE} {PREVIEW} ") == f"{PICTURE} ours "


def test_the_parts_of_a_link() -> None:
    assert LINKS.match(PICTURE, 0, "", ended=True) == (PICTURE, len(PICTURE))
    picture, preview = SignedLink(PICTURE, 0), SignedLink(PREVIEW, 0)
    assert (picture.path, picture.extension) == (f"/files/tools/{ID}.png", "png")
    assert (preview.path, preview.extension) == (f"/files/{ID}/file-preview", "")


def filtered(*events: Event) -> list[Event]:
    links = FileLinks(LINKS, lambda link, file: f"<{link.extension}:{file.type if file else ''}>")
    return [out for one in events for out in links.filter([one])]


DONE = TurnFinished("stop")


def test_events_without_links_are_passed_on_unchanged() -> None:
    links = FileLinks(LINKS, lambda _link, _file: "x")
    events: list[Event] = [TextDelta("a"), TextDelta("b")]
    assert links.filter(events) is events
    assert links.filter([]) == []


@pytest.mark.parametrize("kind", [TextDelta, FixedTextDelta])
def test_text_of_each_kind_keeps_its_kind(kind: type[TextDelta]) -> None:
    assert filtered(kind(f"a {PICTURE}"), kind(" b"), DONE) == [kind("a "), kind("<png:> b"), DONE]


def test_text_of_another_kind_ends_a_link() -> None:
    assert filtered(TextDelta("a /files"), FixedTextDelta("/x"), FixedTextDelta(" h"), DONE) == [
        TextDelta("a "),
        TextDelta("/files"),
        FixedTextDelta("/x"),
        FixedTextDelta(" "),
        FixedTextDelta("h"),
        DONE,
    ]


def test_reasoning_and_steps_do_not_cut_a_link() -> None:
    step = StepChanged("Draw", "started")
    assert filtered(TextDelta(PICTURE[:20]), ReasoningDelta("hm"), step, TextDelta(PICTURE[20:]), DONE) == [
        ReasoningDelta("hm"),
        step,
        TextDelta("<png:>"),
        DONE,
    ]


def test_other_events_end_a_link() -> None:
    assert filtered(TextDelta("see h"), Citations(()), TextDelta(PICTURE)) == [
        TextDelta("see "),
        TextDelta("h"),
        Citations(()),
        TextDelta(PICTURE),
    ], "a link does not begin inside a word, whatever comes between"


def test_a_replacement_and_the_text_after_it_are_rewritten() -> None:
    events = filtered(TextDelta("see h"), TextReplaced(f"look {PICTURE[:30]}", False), TextDelta(PICTURE[30:]), DONE)
    assert events == [TextDelta("see "), TextReplaced("look ", False), TextDelta("<png:>"), DONE]


def test_files_are_rewritten() -> None:
    ours = FileProduced(f"http://api:5001{PREVIEW}", "document", "a.pdf")
    foreign = FileProduced("https://example.com/a.png", "image")
    longer = FileProduced(f"{PICTURE} and more", "image")
    empty = FileProduced("", "image")
    assert filtered(TextDelta("h"), ours, foreign, longer, empty) == [
        TextDelta("h"),
        FileProduced("<:document>", "document", "a.pdf"),
        foreign,
        longer,
        empty,
    ]
    unlinked = FileLinks(LINKS, lambda _link, _file: None)
    assert unlinked.filter([ours]) == [ours]


def test_the_last_event_holds_links_too() -> None:
    outputs = {"text": f"![a]({PICTURE})", "list": [{"url": PREVIEW}], "n": 1}
    (event,) = filtered(TurnFinished("stop", answer=f"see {PICTURE}", outputs=outputs))
    assert event == TurnFinished(
        "stop", answer="see <png:>", outputs={"text": "![a](<png:>)", "list": [{"url": "<:>"}], "n": 1}
    )
    plain = {"text": "a"}
    (event,) = filtered(TurnFinished("stop", outputs=plain))
    assert isinstance(event, TurnFinished)
    assert event.outputs is plain


def test_the_links_of_a_turn_leave_no_cycle() -> None:
    gc.collect()
    gc.disable()
    try:
        FileLinks(LINKS, numbered).filter([TextDelta(PICTURE), TurnFinished("stop", None)])
        assert gc.collect() == 0
    finally:
        gc.enable()
