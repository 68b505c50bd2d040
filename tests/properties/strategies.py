"""Generate streams as Dify may send them, for every app mode, with the variations observed in real streams."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from openai_dify_proxy.events import Event, ReasoningDelta, ToolCallDelta, ToolCallFinished, ToolCallStarted
from openai_dify_proxy.wire.dify import Mode
from tests.dify_streams import (
    PING,
    Json,
    agent_log,
    agent_message,
    agent_thought,
    error,
    message,
    message_end,
    message_file,
    message_replace,
    node,
    reasoning_chunk,
    stream,
    text_chunk,
    usage,
    workflow_finished,
    workflow_paused,
    workflow_started,
)

MODES: tuple[Mode, ...] = ("chat", "agent-chat", "advanced-chat", "completion", "workflow", "agent")

modes = st.sampled_from(MODES)

AWKWARD = [
    "<think>",
    "</think>",
    "<",
    "<thi",
    "</",
    "\n",
    "\r\n",
    "\n\ndata: {}\n\n",
    "\u2028",
    "\u2029",
    "\x85",
    "\x00",
    "🤔",
    "👩\u200d👩\u200d👧",
    "\u0301",
    "e\u0301",
    "漢字",
    "\ufeff",
    '"\\',
    "END",
    "EN",
]
"""Texts that codecs get wrong: tags and parts of tags, separators that are not line ends, combining marks."""

texts = st.lists(st.one_of(st.sampled_from(AWKWARD), st.text(max_size=6)), max_size=6).map("".join)
tagged = st.lists(
    st.sampled_from(["<think>", "</think>", "\n", "\r\n", "<", "</", "<think></think>\n", "a", " "]), max_size=8
).map("".join)
answers = st.lists(texts, max_size=6)
tokens = st.builds(usage, st.integers(0, 10**6), st.integers(0, 10**6), total_price=st.just("0.001"))
maybe_tokens = st.none() | tokens
resources = st.lists(
    st.fixed_dictionaries({"title": texts, "doc_metadata": st.none() | st.dictionaries(texts, texts, max_size=2)}),
    max_size=2,
)
links = st.sampled_from(["/files/a.png?sign=1", "/files/a.png?sign=2", "https://b.example/b.pdf", "http://[", ""])
files = st.lists(
    st.fixed_dictionaries(
        {"url": links, "type": st.sampled_from(["image", "document"])},
        optional={"transfer_method": st.sampled_from(["tool_file", "local_file"]), "filename": texts},
    ),
    max_size=2,
)


@dataclass(frozen=True)
class Turn:
    """The events of a turn and the model's text in them; an irregular turn may end with another text."""

    mode: Mode
    events: tuple[Json | bytes, ...]
    text: str

    @property
    def data(self) -> bytes:
        return stream(*self.events)


def pinged(events: list[Json | bytes], places: list[int]) -> tuple[Json | bytes, ...]:
    result = list(events)
    for place in places:
        result.insert(place % (len(result) + 1), PING)
    return tuple(result)


places = st.lists(st.integers(0, 50), max_size=3)


@st.composite
def plain_turns(draw: st.DrawFn) -> Turn:
    """A successful turn, in the event order of its mode and of some Dify version."""
    mode: Mode = draw(modes)
    parts = draw(answers)
    end = message_end(draw(maybe_tokens), resources=draw(resources))
    text = "".join(parts)
    events: list[Json | bytes]
    if mode in ("chat", "completion"):
        kind = draw(st.sampled_from(["message", "message_file"]))
        events = [*(message(part, event=kind) for part in parts), end]
    elif mode == "agent-chat":
        events = [agent_thought("1"), *map(agent_message, parts), agent_thought("1", text), end]
    elif mode == "agent":
        closing = [message(text)] if draw(st.booleans()) else []
        events = [agent_thought("1"), *map(agent_message, parts), *closing, end]
    else:
        delta_of = text_chunk if mode == "workflow" else message
        done = node("node_finished", status="succeeded", outputs={"usage": draw(maybe_tokens)})
        events = [workflow_started(), node("node_started"), *(delta_of(part, "llm") for part in parts), done]
        finished = workflow_finished(outputs={"answer": text}, total_tokens=draw(st.integers(0, 9)))
        if mode == "workflow":
            events.append(finished)
        else:
            events += draw(st.sampled_from([[finished, end], [end, finished], [finished], [end]]))
    return Turn(mode, pinged(events, draw(places)), text)


@st.composite
def irregular_turns(draw: st.DrawFn) -> Turn:
    """A turn with retries, replacements, files, pauses or failures."""
    turn = draw(plain_turns())
    parts = draw(answers)
    happenings: list[list[Json | bytes]] = [
        [message_replace(draw(texts), reason=draw(st.sampled_from(["output_moderation", "", None])))],
        [node("node_retry"), *(message(part, "llm") for part in parts)],
        [node("node_retry"), *(text_chunk(part) for part in parts)],
        [node("node_finished", status="succeeded", outputs=None)],
        [message_file(draw(links), belongs_to=draw(st.sampled_from(["user", "assistant"])))],
        [reasoning_chunk(part) for part in parts],
        [agent_thought("2", part, tool="t") for part in parts],
        [agent_log("Round", "start"), agent_log("Round", "success")],
        [workflow_paused({"form_content": draw(texts), "actions": [{"id": "ok", "title": draw(texts)}]})],
        [error(draw(texts))],
        [workflow_finished(draw(st.sampled_from(["failed", "stopped", "partial-succeeded"])), {}, error=draw(texts))],
        [message_end(draw(maybe_tokens), files=draw(files))],
        [{"event": draw(texts), "task_id": "t"}],
    ]
    events = list(turn.events)
    for happening in draw(st.lists(st.sampled_from(happenings), max_size=3)):
        at = draw(st.integers(0, len(events)))
        events[at:at] = happening
    return Turn(turn.mode, tuple(events), turn.text)


@st.composite
def disordered_turns(draw: st.DrawFn) -> Turn:
    """The events of such turns, shuffled, omitted and repeated."""
    turn = draw(irregular_turns())
    events = draw(st.lists(st.sampled_from(turn.events), max_size=2 * len(turn.events)))
    return Turn(turn.mode, tuple(events), turn.text)


turns = st.one_of(plain_turns(), irregular_turns(), disordered_turns())


@st.composite
def calls_of_tools(draw: st.DrawFn) -> list[Event]:
    """The events of the calls that end a turn, some with reasoning between them."""
    events: list[Event] = []
    for index in range(draw(st.integers(0, 3))):
        events += [ReasoningDelta(text) for text in draw(st.lists(texts, max_size=1))]
        events.append(ToolCallStarted(index, f"call_{index}", draw(texts), draw(st.booleans())))
        events += [ToolCallDelta(index, text) for text in draw(st.lists(texts, max_size=4))]
        events.append(ToolCallFinished(index))
    return events


SHARDS = [b"data: ", b"data:", b"event: ", b"\n", b"\r", b"{", b"}", b'"event":', b'"error"', b"\xff"]
FRAGMENTS = [b"data: {\n\n", b"data: []\n\n", b"data: {}\n\n", b"data:\n\n", b'data: {"event":"\xff"}\n\n', PING]

garbage = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(SHARDS)).map(b"".join),
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=3).map(b"".join),
)


def json_values() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
    )


@st.composite
def mistyped(draw: st.DrawFn) -> bytes:
    """An event in which some field holds a JSON value that Dify never sends."""
    event = dict(draw(st.sampled_from([e for e in draw(turns).events if isinstance(e, dict)] or [error("x")])))
    field = draw(st.sampled_from([*event, "data", "metadata", "files", "url", "answer"]))
    value = draw(json_values())
    if isinstance(event.get(field), dict) and event[field] and draw(st.booleans()):
        inner = dict(event[field])
        inner[draw(st.sampled_from(sorted(inner)))] = value
        value = inner
    return stream({**event, field: value})


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Split the data at random positions."""

    def cut(at: list[int]) -> list[bytes]:
        ends = sorted({0, len(data), *at})
        return [data[begin:end] for begin, end in pairwise(ends)]

    return st.lists(st.integers(0, len(data)), max_size=12).map(cut)
