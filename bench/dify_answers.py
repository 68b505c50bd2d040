"""The bytes of Dify's answers to the scenarios, for clients that stream and clients that do not."""

from __future__ import annotations

from functools import cache

import msgspec

from bench.scenarios import Scenario, Script

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


@cache
def script(scenario: Scenario) -> Script:
    """Return the streaming answer: an HTTP chunk for each event, as gunicorn sends them."""
    first, *others = [chunk(message(piece)) for piece in scenario.pieces]
    message_end = f'{{"event":"message_end",{_IDS},"metadata":{_METADATA},"files":null}}'
    return Script(
        opening=STREAM_HEAD + first,
        middle=tuple(others),
        ending=chunk(message("")) + chunk(message_end) + b"0\r\n\r\n",
    )


def blocking_answer(scenario: Scenario) -> bytes:
    """Return the answer to `response_mode: blocking`, which other servers than the proxy use."""
    answer = msgspec.json.encode(scenario.text).decode()
    return f'{{"event":"message",{_IDS},"mode":"chat","answer":{answer},"metadata":{_METADATA}}}'.encode()


def within(answer: Script, conversation_id: str) -> Script:
    """Return the answer in another conversation. All ids have the same length, so chunk sizes stay valid."""
    old, new = CONVERSATION_ID.encode(), conversation_id.encode()
    middle = tuple(each.replace(old, new) for each in answer.middle)
    return Script(answer.opening.replace(old, new), middle, answer.ending.replace(old, new))


def message(text: str, *, node: str | None = None) -> str:
    """Return an event with text; `node` is the node of a chatflow that wrote it."""
    answer = msgspec.json.encode(text).decode()
    selector = "null" if node is None else f'["{node}","text"]'
    return f'{{"event":"message",{_IDS},"answer":{answer},"from_variable_selector":{selector}}}'


def chunk(event: str) -> bytes:
    """Return an event as a chunk of an HTTP body."""
    frame = b"data: %b\n\n" % event.encode()
    return b"%x\r\n%b\r\n" % (len(frame), frame)
