"""Links to Dify's files are replaced alike however the text is cut, and little text is held back."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.events import Event, FileProduced, TextDelta, TurnFinished
from openai_dify_proxy.translate.dify.file_links import FileLinks, LinkRewriter
from openai_dify_proxy.translate.dify.signed_links import SignedLink, SignedLinks

ID = "6494c949-de7b-42ce-a28c-374bde984d1c"
QUERY = "?timestamp=1795883998&nonce=50f0759451affebf29cda7fd715139e2&sign=p9n8E8aAF_hIEd5cMGVrAB3E0GU5Dtlf27dQfGm5jzA="
LINKS = SignedLinks("https://dify.example.com/base")
LONGEST = 600
"""More characters than the longest link has: a host of 270, a path, a nonce of 64 and a signature of 128."""

hosts = st.sampled_from(
    ["", "https://dify.example.com", "http://api:5001", "http://[::1]", "https://example.com", "//x"]
)
paths = st.sampled_from(
    [f"/files/tools/{ID}.png", f"/base/files/{ID}/file-preview", f"/files/{ID}/image-preview", f"/files/tools/{ID}"]
)
links = st.builds(
    lambda host, path, query: host + path + query, hosts, paths, st.sampled_from([QUERY, QUERY + "&x=1", ""])
)
parts = st.one_of(
    links,
    st.builds(lambda link, size: link[:size], links, st.integers(1, 250)),
    st.sampled_from([" ", "(", ")", "![a](", "h", "ht", "http", "https://", "/", "/files/", ".", "a", "\n", "图", "="]),
    st.text(max_size=3),
)
texts = st.lists(parts, max_size=8).map("".join)


def numbered(link: SignedLink, _file: FileProduced | None) -> str:
    return f"<{link.path}>"


def whole(text: str) -> str:
    rewriter = LinkRewriter(LINKS, numbered)
    return rewriter.feed(text) + rewriter.finish()


@given(texts, st.lists(st.integers(0, 1000), max_size=8))
def test_any_split_gives_the_same_text(text: str, places: list[int]) -> None:
    cuts = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    deltas: list[Event] = [TextDelta(text[a:b]) for a, b in pairwise(cuts)]
    filtered = FileLinks(LINKS, numbered)
    events = [out for delta in deltas for out in filtered.filter([delta])] + filtered.filter([TurnFinished("stop")])
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == whole(text)


@given(texts)
def test_characters_one_by_one_give_the_same_text_and_are_held_for_a_link_at_most(text: str) -> None:
    rewriter = LinkRewriter(LINKS, numbered)
    sent = ""
    for number, character in enumerate(text, 1):
        sent += rewriter.feed(character)
        assert whole(text[:number]).startswith(sent) or len(text[:number]) - len(sent) < LONGEST
    assert sent + rewriter.finish() == whole(text)


@given(st.text(alphabet=st.characters(exclude_characters="/h"), max_size=50))
def test_text_without_a_beginning_of_a_link_is_never_held_back(text: str) -> None:
    assert LinkRewriter(LINKS, numbered).feed(text) == text
