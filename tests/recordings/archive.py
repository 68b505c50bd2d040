"""Read the recordings: answers of real Dify servers, each with the expected answer of the proxy.

``<upstream>-<version>/NAME.request.json`` holds the request, ``NAME.response.txt`` the bytes of the answer as received,
without the chunked framing, and ``NAME.expected.json`` the answer that an OpenAI client reads. The first two are never
edited; ``python -m tests.recordings.rewrite`` writes the third. ``handmade`` has the same layout, but its answers were
written by hand in Dify's format, for cases that no recording covers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
HANDMADE = "handmade"
VERSIONS = ("dify-1.11.2", "dify-1.13.0", "dify-1.16.1", "dify-1.16.1-main", "dify-1.16.1-main-2026-08-19")

GENERATING = ("/chat-messages", "/completion-messages", "/workflows/run")
"""Dify's routes that run an app."""

_MODES = (
    ("agent-new", "agent"),
    ("agent", "agent-chat"),
    ("chatflow", "advanced-chat"),
    ("chat", "chat"),
    ("completion", "completion"),
    ("workflow", "workflow"),
)
"""App modes by name prefix, for requests that do not state the mode."""

_FRAME = re.compile(rb".*?\r?\n\r?\n|.+", re.DOTALL)

Json = dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """A request and its answer. Files are read on first use."""

    folder: str
    name: str

    @property
    def label(self) -> str:
        return f"{self.folder}/{self.name}"

    @property
    def key(self) -> str:
        """The Dify key by which a replaying server finds this recording."""
        return f"app-{self.folder}-{self.name}"

    @cached_property
    def request(self) -> Json:
        request: Json = json.loads(self._path("request.json").read_bytes())
        return request

    @property
    def request_json(self) -> Json:
        """The JSON body of the request; empty if there is none."""
        body = self.request.get("json")
        return body if isinstance(body, dict) else {}

    @property
    def mode(self) -> str:
        app = self.request["app"] or "chat"  # a request with a wrong key reaches no app
        return self.request.get("app_mode") or next(mode for prefix, mode in _MODES if app.startswith(prefix))

    @property
    def generates(self) -> bool:
        return self.request["method"] == "POST" and self.request["path"] in GENERATING

    @cached_property
    def response(self) -> tuple[bytes, bytes]:
        """The head, including its empty line and any interim answer, and the body."""
        raw = self._path("response.txt").read_bytes()
        end = raw.index(b"\r\n\r\n") + 4
        if raw.startswith(b"HTTP/1.1 100"):
            end = raw.index(b"\r\n\r\n", end) + 4
        return raw[:end], raw[end:]

    @property
    def body(self) -> bytes:
        return self.response[1]

    @cached_property
    def status(self) -> int:
        return int(self._head_lines[0].split(" ")[1])

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name."""
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in self._head_lines[1:])}

    @property
    def is_stream(self) -> bool:
        """Whether Dify answered with an event stream."""
        return self.generates and self.headers["content-type"].startswith("text/event-stream")

    @property
    def is_refusal(self) -> bool:
        return self.generates and self.status >= 400

    @property
    def is_blocking_answer(self) -> bool:
        """Whether this is the complete answer to a request in blocking mode."""
        return self.generates and self.status == 200 and not self.is_stream

    @property
    def frames(self) -> list[bytes]:
        """The body, split behind each empty line."""
        return _FRAME.findall(self.body)

    def events(self) -> list[Json]:
        """Decode the stream's events without pings, independently of the proxy's code."""
        frames = self.body.replace(b"\r\n", b"\n").split(b"\n\n")
        return [json.loads(frame[5:]) for frame in frames if frame.startswith(b"data:")]

    def events_named(self, *names: str) -> list[Json]:
        return [event for event in self.events() if event["event"] in names]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def has_expected(self) -> bool:
        return self._path("expected.json").exists()

    def expected(self) -> Json:
        expected: Json = json.loads(self._path("expected.json").read_bytes())
        return expected

    def write_expected(self, expected: Json) -> None:
        self._path("expected.json").write_text(_pretty(expected), encoding="utf-8", newline="\n")

    @property
    def _head_lines(self) -> list[str]:
        return self.response[0].decode("latin-1").strip().split("\r\n\r\n")[-1].split("\r\n")

    def _path(self, kind: str) -> Path:
        return FOLDER / self.folder / f"{self.name}.{kind}"


@cache
def recordings(folder: str) -> tuple[Recording, ...]:
    """Return all recordings of a folder, sorted by name."""
    names = sorted(path.name.removesuffix(".request.json") for path in (FOLDER / folder).glob("*.request.json"))
    return tuple(Recording(folder, name) for name in names)


def select(wanted: Callable[[Recording], bool], folders: Iterable[str] = VERSIONS) -> list[Recording]:
    return [recording for folder in folders for recording in recordings(folder) if wanted(recording)]


def streams(*folders: str) -> list[Recording]:
    return select(lambda recording: recording.is_stream, folders or VERSIONS)


def examples(*folders: str) -> list[Recording]:
    """Return the smallest stream of each kind, that is of each version, mode and set of Dify events."""
    kinds: dict[tuple[str, str, frozenset[str]], Recording] = {}
    for stream in sorted(streams(*folders), key=lambda recording: len(recording.body)):
        kinds.setdefault((stream.folder, stream.mode, frozenset(event["event"] for event in stream.events())), stream)
    return list(kinds.values())


def refusals(*folders: str) -> list[Recording]:
    return select(lambda recording: recording.is_refusal, folders or VERSIONS)


def has(folder: str, name: str) -> bool:
    return any(recording.name == name for recording in recordings(folder))


@cache
def named(folder: str, name: str) -> Recording:
    return next(recording for recording in recordings(folder) if recording.name == name)


def _pretty(expected: Json) -> str:
    """Format JSON with one line per chunk, for readable diffs."""
    chunks = ",\n".join(f"  {_line(chunk)}" for chunk in expected["stream"])
    return f'{{\n "stream": [\n{chunks}\n ],\n "answer": {_line(expected["answer"])}\n}}\n'


def _line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
