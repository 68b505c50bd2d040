"""A Dify chat app with minimal overhead: an asyncio protocol that sends prepared bytes.

`python -m bench.upstream PORT` prints its port (0 selects a free one) and serves until it is stopped. It serves the
routes of a chat app, OpenAI's chat completions with the same texts and times, and two routes for the load generator:
`/bench/events` returns the number of text events sent so far, `/bench/release` continues the held streams. The stop
route returns success and has no effect.
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

from bench import openai_answers
from bench.dify_answers import blocking_answer, script, within
from bench.limits import allow_many_connections
from bench.scenarios import Scenario, Script, scenario_in

_BLOCKING = re.compile(rb'"response_mode"\s*:\s*"blocking"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_CONVERSATION = re.compile(rb'"conversation_id"\s*:\s*"([0-9a-f-]{36})"')

INFO = b'{"name":"bench","description":"bench","tags":[],"mode":"chat","author_name":"bench"}'
PARAMETERS = (
    b'{"opening_statement":"","suggested_questions":[],"suggested_questions_after_answer":{"enabled":false},'
    b'"speech_to_text":{"enabled":false},"text_to_speech":{"enabled":false,"language":"","voice":""},'
    b'"retriever_resource":{"enabled":true},"annotation_reply":{"enabled":false},"more_like_this":{"enabled":false},'
    b'"user_input_form":[],"sensitive_word_avoidance":{"configs":[],"enabled":false,"type":""},"file_upload":{"enabled":'
    b'true,"image":{"detail":"high","enabled":true,"number_limits":3,"transfer_methods":["remote_url","local_file"]}},'
    b'"system_parameters":{"image_file_size_limit":50,"video_file_size_limit":100,"audio_file_size_limit":50,'
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
    """One HTTP/1.1 connection without pipelining, as HTTP clients use it."""

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self.upstream = upstream
        self.loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        self.url = b""
        self.body = bytearray()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transport is no subclass

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url = b""
        self.body = bytearray()  # a body of many megabytes arrives in many parts

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        path = self.url.partition(b"?")[0]
        match path:
            case b"/v1/chat-messages" if _BLOCKING.search(self.body):
                self.answer_json(blocking_answer(scenario_in(self.body)))
            case b"/v1/chat-messages":
                self._stream(scenario_in(self.body))
            case b"/v1/chat/completions" if _STREAM.search(self.body):
                scenario = scenario_in(self.body)
                self._send(scenario, openai_answers.script(scenario))
            case b"/v1/chat/completions":
                self.answer_json(openai_answers.whole_answer(scenario_in(self.body)))
            case b"/v1/info":
                self.answer_json(INFO)
            case b"/v1/parameters":
                self.answer_json(PARAMETERS)
            case b"/bench/events":
                self.answer_json(b"%d" % self.upstream.events)
            case b"/bench/release":
                self.upstream.release()
                self.answer_json(b"{}")
            case _ if path.endswith(b"/stop"):
                self.answer_json(b'{"result":"success"}')
            case _:
                self.answer_json(NOT_FOUND, status=b"404 NOT FOUND")

    def finish(self, answer: Script) -> None:
        """Send the rest of a held stream in one write."""
        self.upstream.events += len(answer.middle)
        self.write(b"".join(answer.middle) + answer.ending)

    def _stream(self, scenario: Scenario) -> None:
        answer = script(scenario)
        if scenario.converse:
            existing = _CONVERSATION.search(self.body)
            answer = within(answer, existing[1].decode() if existing else str(uuid.uuid4()))
        self._send(scenario, answer)

    def _send(self, scenario: Scenario, answer: Script) -> None:
        self.upstream.events += 1
        if scenario.hold:
            self.write(answer.opening)
            self.upstream.held.append((self, answer))
        elif scenario.gap_ms:
            self.write(answer.opening)
            gap = scenario.gap_ms / 1000
            self.loop.call_later(gap, self._next_event, answer, 0, gap, self.loop.time())
        else:
            self.upstream.events += len(answer.middle)
            self.write(answer.opening + b"".join(answer.middle) + answer.ending)

    def _next_event(self, answer: Script, index: int, gap: float, started: float) -> None:
        if self.transport is None:
            return
        if index == len(answer.middle):
            self.write(answer.ending)
            return
        self.upstream.events += 1
        self.write(answer.middle[index])
        self.loop.call_at(started + (index + 2) * gap, self._next_event, answer, index + 1, gap, started)

    def answer_json(self, body: bytes, status: bytes = b"200 OK") -> None:
        head = b"HTTP/1.1 %b\r\nServer: gunicorn\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.write(head % (status, len(body)) + body)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


async def serve(port: int, protocol: type[DifyConnection] = DifyConnection) -> None:
    """Print the port, and serve until the process is stopped."""
    loop = asyncio.get_running_loop()
    upstream = Upstream()
    server = await loop.create_server(lambda: protocol(upstream, loop), "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    allow_many_connections()
    uvloop.run(serve(int(sys.argv[1])))
