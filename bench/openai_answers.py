"""The bytes of an OpenAI server's answers to the scenarios: the texts and times of Dify's, in chat completions."""

from __future__ import annotations

from functools import cache

import msgspec

from bench.scenarios import Scenario, Script

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: openai\r\nDate: Sun, 22 Nov 2026 16:00:43 GMT\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"X-Request-Id: req_263e5347b68647923e6d3e0e3bf311\r\n\r\n"
)
_COMMON = '"id":"chatcmpl-263e5347b6864792","created":1795363243,"model":"m","system_fingerprint":"fp_1"'
_USAGE = '"usage":{"prompt_tokens":3,"completion_tokens":26,"total_tokens":29}'


@cache
def script(scenario: Scenario) -> Script:
    """Return the streaming answer: an HTTP chunk for each `chat.completion.chunk`."""
    first, *others = [_chunk(f'{{"content":{_string(piece)}}}') for piece in scenario.pieces]
    done = b"data: [DONE]\n\n"
    return Script(
        opening=STREAM_HEAD + _chunk('{"role":"assistant","content":""}') + first,
        middle=tuple(others),
        ending=_chunk("{}", '"stop"') + b"%x\r\n%b\r\n" % (len(done), done) + b"0\r\n\r\n",
    )


@cache
def whole_answer(scenario: Scenario) -> bytes:
    """Return the answer to a client that does not stream."""
    message = f'{{"role":"assistant","content":{_string(scenario.text)},"refusal":null}}'
    choice = f'{{"index":0,"message":{message},"logprobs":null,"finish_reason":"stop"}}'
    return f'{{{_COMMON},"object":"chat.completion","choices":[{choice}],{_USAGE}}}'.encode()


def _chunk(delta: str, finish_reason: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}}}'
    frame = f'data: {{{_COMMON},"object":"chat.completion.chunk","choices":[{choice}]}}\n\n'.encode()
    return b"%x\r\n%b\r\n" % (len(frame), frame)


def _string(text: str) -> str:
    return msgspec.json.encode(text).decode()
