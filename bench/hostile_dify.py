"""A Dify that attacks the proxy: an honest one, unless the question names an attack or the key is not the bench's.

`python -m bench.hostile_dify PORT` prints its port and serves until it is stopped, as `bench.upstream` does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import repeat

import uvloop
from typing_extensions import override

from bench.dify_answers import STREAM_HEAD, chunk, message, script
from bench.limits import allow_many_connections
from bench.scenarios import Scenario
from bench.upstream import DifyConnection, serve

KEY = b"app-bench"
SLOW_KEY = b"app-slow"
"""The beginning of keys that are rejected after `SLOW_SECONDS`; other wrong keys are rejected at once."""
SLOW_SECONDS = 2.0

UNAUTHORIZED = b'{"code":"unauthorized","message":"Access token is invalid","status":401}'
UPLOADED = b'{"id":"3fa85f64-5717-4562-b3fc-2c963f66afa6","name":"image.png","size":1}'
HEAD_START = STREAM_HEAD.partition(b"\r\n")[0] + b"\r\n"

_ATTACK = re.compile(rb"HOSTILE ([a-z-]+)")


def question(attack: str) -> str:
    """Return the question that starts an attack of `ATTACKS`."""
    return f"HOSTILE {attack}"


def _node_retries() -> Iterator[bytes]:
    """Yield a megabyte of a node's text, its retry, and the same text again in deltas of two characters."""
    yield STREAM_HEAD + b"".join(chunk(message("x" * 4096, node="llm")) for _ in range(256))
    yield chunk('{"event":"node_retry","task_id":"t","data":{"node_id":"llm","retry_index":1}}')
    yield from repeat(chunk(message("xx", node="llm")) * 1000, 500)
    yield script(Scenario(events=1, size=8)).ending


def _burst(events: int) -> bytes:
    answer = script(Scenario(events=events, size=8))
    return answer.opening + b"".join(answer.middle) + answer.ending


def _flood() -> Iterator[bytes]:
    yield STREAM_HEAD
    yield from repeat(chunk(message("Once upon a time. " * 20)) * 100)


ATTACKS = {
    # A model that repeats a tag, in one event.
    "think": lambda: iter(
        [STREAM_HEAD + chunk(message("<think></think>" * 70_000)) + script(Scenario(events=1, size=8)).ending]
    ),
    "headers": lambda: _endless(HEAD_START, b"".join(b"X-Header-%d: %b\r\n" % (n, b"v" * 50) for n in range(1000))),
    "header-value": lambda: _endless(HEAD_START + b"X-Header: ", b"v" * 65_536),
    "node-retries": _node_retries,
    "burst": lambda: iter([_burst(20_000)]),
    "flood": _flood,
}
"""The bytes of each attack's response."""


def _endless(first: bytes, forever: bytes) -> Iterator[bytes]:
    yield first
    yield from repeat(forever)


class HostileDify(DifyConnection):
    """One connection, which starts an attack or answers as an honest Dify."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._authorization = b""
        self._attack: Iterator[bytes] = iter(())
        self._paused = False

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._authorization = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._authorization = value.removeprefix(b"Bearer ")

    @override
    def on_message_complete(self) -> None:
        attack = _ATTACK.search(self.body)
        if self._authorization != KEY:
            delay = SLOW_SECONDS if self._authorization.startswith(SLOW_KEY) else 0
            self.loop.call_later(delay, self.answer_json, UNAUTHORIZED, b"401 UNAUTHORIZED")
        elif attack is not None and self.url.startswith(b"/v1/chat-messages"):
            self._attack = ATTACKS[attack[1].decode()]()
            self._send_more()
        elif self.url.startswith(b"/v1/files/upload"):
            self.answer_json(UPLOADED, b"201 CREATED")
        else:
            super().on_message_complete()

    @override
    def pause_writing(self) -> None:
        self._paused = True

    @override
    def resume_writing(self) -> None:
        self._paused = False
        self._send_more()

    def _send_more(self) -> None:
        """Send until the proxy stops reading. Other connections run between two writes."""
        if self.transport is None or self._paused:
            return
        data = next(self._attack, None)
        if data is not None:
            self.write(data)
        if data is not None and not self._paused:  # else resume_writing continues
            self.loop.call_soon(self._send_more)


if __name__ == "__main__":
    allow_many_connections()
    uvloop.run(serve(int(sys.argv[1]), HostileDify))
