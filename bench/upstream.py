"""A Dify chat app with minimal overhead: an asyncio protocol that sends the prepared bytes of `scenarios`.

`python -m bench.upstream PORT` prints its port (0 selects a free one) and serves until it is stopped. It serves the
routes of a chat app and two for the load generator: `/bench/events` returns the number of text events sent so far,
`/bench/release` continues the held streams. The stop route returns success and has no effect.
"""

from __future__ import annotations

import asyncio
import re
import sys
import uuid
from typing import cast

import httptools
import uvloop
from typing_extensions import override

from bench.limits import allow_many_connections
from bench.scenarios import Scenario, Script, blocking_answer, scenario_in, script

_BLOCKING = re.compile(rb'"response_mode"\s*:\s*"blocking"')
_CONVERSATION = re.compile(rb'"conversation_id"\s*:\s*"([0-9a-f-]{36})"')

INFO = b'{"name":"bench","description":"bench","tags":[],"mode":"chat","author_name":"bench"}'
PARAMETERS = (
    b'{"opening_statement":"","suggested_questions":[],"suggested_questions_after_answer":{"enabled":false},'
    b'"speech_to_text":{"enabled":false},"text_to_speech":{"enabled":false,"language":"","voice":""},'
    b'"retriever_resource":{"enabled":true},"annotation_reply":{"enabled":false},"more_like_this":{"enabled":false},'
    b'"user_input_form":[],"sensitive_word_avoidance":{"configs":[],"enabled":false,"type":""},"file_upload":{"enabled":'
    b'false,"image":{"detail":"high","enabled":false,"number_limits":3,"transfer_methods":["remote_url","local_file"]}},'
    b'"system_parameters":{"image_file_size_limit":10,"video_file_size_limit":100,"audio_file_size_limit":50,'
    b'"file_size_limit":15,"workflow_file_upload_limit":10}}'
)
NOT_FOUND = b'{"code":"not_found","message":"The requested URL was not found on the server.","status":404}'


class Upstream:
    """State that the connections share: the number of text events sent, and the held streams."""

    def __init__(self) -> None:
        self.events = 0
        self.held: list[tuple[DifyConnection, Script]] = []

    def release(self) -> None:
        held, self.held = self.held, []
        for connection, answer in held:
            connection.finish(answer)


class DifyConnection(asyncio.Protocol):
    """One HTTP/1.1 connection without pipelining, as Dify's clients use it."""

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self._upstream = upstream
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._body = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport is no subclass

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path = self._url.partition(b"?")[0]
        match path:
            case b"/v1/chat-messages" if _BLOCKING.search(self._body):
                self._answer_json(blocking_answer(scenario_in(self._body)))
            case b"/v1/chat-messages":
                self._stream(scenario_in(self._body))
            case b"/v1/info":
                self._answer_json(INFO)
            case b"/v1/parameters":
                self._answer_json(PARAMETERS)
            case b"/bench/events":
                self._answer_json(b"%d" % self._upstream.events)
            case b"/bench/release":
                self._upstream.release()
                self._answer_json(b"{}")
            case _ if path.endswith(b"/stop"):
                self._answer_json(b'{"result":"success"}')
            case _:
                self._answer_json(NOT_FOUND, status=b"404 NOT FOUND")

    def finish(self, answer: Script) -> None:
        """Send the rest of a held stream in one write."""
        self._upstream.events += len(answer.middle)
        self._write(b"".join(answer.middle) + answer.ending)

    def _stream(self, scenario: Scenario) -> None:
        answer = script(scenario)
        if scenario.converse:
            existing = _CONVERSATION.search(self._body)
            answer = answer.within(existing[1].decode() if existing else str(uuid.uuid4()))
        self._upstream.events += 1
        if scenario.hold:
            self._write(answer.opening)
            self._upstream.held.append((self, answer))
        elif scenario.gap_ms:
            self._write(answer.opening)
            gap = scenario.gap_ms / 1000
            self._loop.call_later(gap, self._next_event, answer, 0, gap, self._loop.time())
        else:
            self._upstream.events += len(answer.middle)
            self._write(answer.opening + b"".join(answer.middle) + answer.ending)

    def _next_event(self, answer: Script, index: int, gap: float, started: float) -> None:
        if self._transport is None:
            return
        if index == len(answer.middle):
            self._write(answer.ending)
            return
        self._upstream.events += 1
        self._write(answer.middle[index])
        self._loop.call_at(started + (index + 2) * gap, self._next_event, answer, index + 1, gap, started)

    def _answer_json(self, body: bytes, status: bytes = b"200 OK") -> None:
        head = b"HTTP/1.1 %b\r\nServer: gunicorn\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._write(head % (status, len(body)) + body)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    upstream = Upstream()
    server = await loop.create_server(lambda: DifyConnection(upstream, loop), "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    allow_many_connections()
    uvloop.run(serve(int(sys.argv[1])))
