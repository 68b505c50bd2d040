"""The scenarios of the scripted upstream, and the bytes of its answers.

The load generator encodes a scenario in the question, and the upstream finds it in the request body. Thus one upstream
serves nginx, the proxy and any other server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Self

import msgspec

OPENING = "Once"
"""The beginning of every answer, by which the client detects the first text."""

_STORY = (
    ' there was a model that wrote "tokens", a few letters each,\nsome *plain*, some `quoted`, '
    "and some far from ASCII: "
    "naïve café, 你好，世界, λ → μ. It never tired of it. "
)

CONVERSATION_ID = "92c31acc-753d-462d-86ce-5478e20df7d9"
_IDS = (
    f'"conversation_id":"{CONVERSATION_ID}","message_id":"263e5347-b686-4792-b25c-6d3e0e3bf311",'
    '"created_at":1795363243,"task_id":"f801db06-1f8c-40ba-8922-9d8f3212ae7e","id":"263e5347-b686-4792-b25c-6d3e0e3bf311"'
)
_METADATA = (
    '{"annotation_reply":null,"retriever_resources":[],"usage":{"prompt_tokens":3,"prompt_unit_price":"2.50",'
    '"prompt_price_unit":"0.000001","prompt_price":"0.0000075","completion_tokens":26,"completion_unit_price":"10.00",'
    '"completion_price_unit":"0.000001","completion_price":"0.0002600","total_tokens":29,"total_price":"0.0002675",'
    '"currency":"USD","latency":1.1614788609999778,"time_to_first_token":0.0,"time_to_generate":0.715}}'
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Sun, 22 Nov 2026 16:00:43 GMT\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-Env, X-Trace-Id, X-Version\r\n"
    b"X-Version: 1.13.0\r\nX-Env: PRODUCTION\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """An answer of `events` text events of `size` characters: all in one write, or one each `gap_ms` milliseconds.

    With `hold` the upstream sends the first event, and the rest once the load generator releases it. With `converse`
    each conversation has its own id, as in Dify; otherwise all have the same one.
    """

    events: int
    size: int
    gap_ms: int = 0
    hold: bool = False
    converse: bool = False

    @property
    def question(self) -> str:
        flags = f"hold={self.hold:d} converse={self.converse:d}"
        return f"SCENARIO events={self.events} size={self.size} gap={self.gap_ms} {flags}"

    @property
    def pieces(self) -> list[str]:
        length = self.events * self.size
        text = (OPENING + _STORY * (length // len(_STORY) + 1))[:length]
        return [text[start : start + self.size] for start in range(0, length, self.size)]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


_QUESTION = re.compile(rb"SCENARIO events=(\d+) size=(\d+) gap=(\d+) hold=([01]) converse=([01])")
DEFAULT = Scenario(events=3, size=40)


def scenario_in(body: bytes) -> Scenario:
    """Return the scenario in the body of a request, or a short default."""
    found = _QUESTION.search(body)
    if found is None:
        return DEFAULT
    events, size, gap_ms, hold, converse = map(int, found.groups())
    return Scenario(events, size, gap_ms, bool(hold), bool(converse))


@dataclass(frozen=True, slots=True)
class Script:
    """An encoded streaming answer of a Dify chat app: an HTTP chunk for each event, as gunicorn sends them."""

    opening: bytes
    """Status line, headers, and the first event."""
    middle: tuple[bytes, ...]
    """The other text events."""
    ending: bytes
    """The empty last message, `message_end`, and the last chunk of the body."""

    def within(self, conversation_id: str) -> Self:
        """Return the answer in another conversation. All ids have the same length, so chunk sizes stay valid."""
        old, new = CONVERSATION_ID.encode(), conversation_id.encode()
        middle = tuple(chunk.replace(old, new) for chunk in self.middle)
        return type(self)(self.opening.replace(old, new), middle, self.ending.replace(old, new))


@cache
def script(scenario: Scenario) -> Script:
    first, *others = [_chunk(_message(piece)) for piece in scenario.pieces]
    message_end = f'{{"event":"message_end",{_IDS},"metadata":{_METADATA},"files":null}}'
    return Script(
        opening=STREAM_HEAD + first,
        middle=tuple(others),
        ending=_chunk(_message("")) + _chunk(message_end) + b"0\r\n\r\n",
    )


def blocking_answer(scenario: Scenario) -> bytes:
    """Return Dify's answer to `response_mode: blocking`, which other servers than the proxy use."""
    answer = msgspec.json.encode(scenario.text).decode()
    return f'{{"event":"message",{_IDS},"mode":"chat","answer":{answer},"metadata":{_METADATA}}}'.encode()


def _message(text: str) -> str:
    return f'{{"event":"message",{_IDS},"answer":{msgspec.json.encode(text).decode()},"from_variable_selector":null}}'


def _chunk(event: str) -> bytes:
    frame = b"data: %b\n\n" % event.encode()
    return b"%x\r\n%b\r\n" % (len(frame), frame)
