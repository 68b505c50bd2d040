"""Audio calls to a Dify whose answers a test writes: failures, disconnects, slow readers, slots."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoLog
from tests.api.audio_requests import wav
from tests.api.chat_requests import error_of
from tests.api.conftest import Serve
from tests.api.raw_client import Client, until
from tests.api.servers import (
    LAST_CHUNK,
    ProxyServer,
    RawRequest,
    app_settings,
    chunk,
    http_answer,
    raw_dify,
    read_request,
    scripted,
    serving,
)
from tests.api.slots import occupied, queued, status
from tests.limits import PATIENCE

AUDIO_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
MP3 = b"ID3\4\0\0\0\0\0\0" + b"\xff\xfb\x90\x64" * 8
SPEECH = {"model": "raw", "input": "Hello"}
WAV = wav()


def proxy_of(url: str, **settings: Any) -> ProxyServer:
    settings = {"dify_max_concurrent": "off"} | settings
    return ProxyServer(Settings(dify_api_url=url, apps={"raw": app_settings("raw", "app-raw", url)}, **settings))


async def speak(proxy: ProxyServer, http: httpx2.AsyncClient, **more: Any) -> httpx2.Response:
    return await http.post(f"{proxy.url}/audio/speech", json=SPEECH | more)


async def transcribe(proxy: ProxyServer, http: httpx2.AsyncClient, **fields: str) -> httpx2.Response:
    return await http.post(
        f"{proxy.url}/audio/transcriptions", data={"model": "raw", **fields}, files={"file": ("sound.wav", WAV)}
    )


FAILURES: dict[str, tuple[bytes, int, str]] = {
    "no answer": (b"", 502, "upstream_incomplete"),
    "an empty body": (http_answer(200, b"", "audio/mpeg"), 502, "upstream_error"),
    "JSON instead of audio": (http_answer(200, b"null\n"), 502, "upstream_error"),
    "a page of a balancer": (http_answer(502, b"<html>", "text/html"), 502, "upstream_error"),
    "a status without a body": (AUDIO_HEAD.replace(b"200 OK", b"500 NO") + LAST_CHUNK, 502, "upstream_error"),
    "a body that breaks off before its first byte": (AUDIO_HEAD, 502, "upstream_incomplete"),
}


@pytest.mark.parametrize(("answer", "code_of_status", "code"), FAILURES.values(), ids=FAILURES)
async def test_a_failure_before_the_first_byte_has_its_own_status(
    http: httpx2.AsyncClient, answer: bytes, code_of_status: int, code: str
) -> None:
    async with raw_dify(scripted([answer])) as dify:
        with proxy_of(dify.url) as proxy:
            reply = await speak(proxy, http)
    assert (reply.status_code, error_of(reply)["code"]) == (code_of_status, code)
    assert reply.headers["x-should-retry"] == "false"


async def test_speech_that_breaks_off_breaks_off_for_the_client(http: httpx2.AsyncClient) -> None:
    """So a client does not take a part for the whole."""
    async with raw_dify(scripted([AUDIO_HEAD, chunk(MP3)])) as dify:
        with proxy_of(dify.url) as proxy:
            with pytest.raises(httpx2.RemoteProtocolError):
                await speak(proxy, http)
            reply = await speak(proxy, http, stream_format="sse")
    assert json.loads(reply.text.strip().split("data: ")[-1])["error"]["code"] == "upstream_incomplete"


@pytest.mark.parametrize(
    ("body", "kind", "shown"),
    [
        (MP3, "audio/mpeg", "audio/mpeg"),
        (WAV, "audio/mpeg", "audio/wav"),
        (b"OggS" + b"\0" * 60, "audio/mpeg; x=y", "audio/ogg"),
        (b"unknown", "audio/x-new", "audio/x-new"),
    ],
)
async def test_the_content_type_is_that_of_the_bytes(
    http: httpx2.AsyncClient, body: bytes, kind: str, shown: str
) -> None:
    async with raw_dify(scripted([http_answer(200, body, kind)])) as dify:
        with proxy_of(dify.url) as proxy:
            reply = await speak(proxy, http)
    assert (reply.headers["content-type"], reply.content) == (shown, body)
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_speech_is_passed_on_as_it_arrives(http: httpx2.AsyncClient) -> None:
    seen = asyncio.Event()

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(AUDIO_HEAD + chunk(MP3))
        await asyncio.wait_for(seen.wait(), PATIENCE)
        writer.write(chunk(b"rest") + LAST_CHUNK)

    async with raw_dify(answer) as dify:
        with proxy_of(dify.url) as proxy:
            async with http.stream("POST", f"{proxy.url}/audio/speech", json=SPEECH) as reply:
                parts = reply.aiter_raw()
                assert await anext(parts) == MP3
                seen.set()
                assert b"".join([part async for part in parts]) == b"rest"


@pytest.mark.parametrize("body", [b"no JSON", b'{"text": 5}', b"[]"])
async def test_a_transcription_that_cannot_be_read(http: httpx2.AsyncClient, body: bytes) -> None:
    async with raw_dify(scripted([http_answer(200, body)])) as dify:
        with proxy_of(dify.url) as proxy:
            reply = await transcribe(proxy, http)
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")


async def test_a_transcription_of_silence(http: httpx2.AsyncClient) -> None:
    async with raw_dify(scripted([http_answer(200, b'{"text": null}')])) as dify:
        with proxy_of(dify.url) as proxy:
            assert (await transcribe(proxy, http)).json() == {"text": ""}
            streamed = await transcribe(proxy, http, stream="true")
            assert streamed.text == 'data: {"type":"transcript.text.done","text":""}\n\n'


async def test_a_huge_transcription_is_not_read(http: httpx2.AsyncClient) -> None:
    text = b'{"text": "' + b"x" * 5_000_000 + b'"}'
    async with raw_dify(scripted([http_answer(200, text)])) as dify:
        with proxy_of(dify.url) as proxy:
            reply = await transcribe(proxy, http)
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")


async def silent(_request: RawRequest, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(PATIENCE)


async def test_a_silent_dify_times_out(http: httpx2.AsyncClient) -> None:
    async with raw_dify(silent) as dify:
        with proxy_of(dify.url, silence_timeout=0.2) as proxy:
            for reply in (await speak(proxy, http), await transcribe(proxy, http)):
                assert (reply.status_code, error_of(reply)["code"]) == (504, "upstream_timeout")
                assert reply.headers["x-should-retry"] == "false"
        with proxy_of(dify.url, turn_timeout=0.2) as proxy:
            assert (await speak(proxy, http)).status_code == 504


async def test_a_streamed_transcription_has_heartbeats_and_a_late_failure(http: httpx2.AsyncClient) -> None:
    async with raw_dify(silent) as dify:
        with proxy_of(dify.url, first_event_grace=0, heartbeat_interval=0.05, silence_timeout=1) as proxy:
            reply = await transcribe(proxy, http, stream="true")
    assert reply.status_code == 200
    *beats, last = reply.text.removesuffix("\n\n").split("\n\n")
    assert len(beats) > 1
    assert {*beats} == {": keep-alive"}
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_timeout"


async def test_a_streamed_transcription_fails_early_with_its_own_status(http: httpx2.AsyncClient) -> None:
    refusal = json.dumps({"code": "speech_to_text_disabled", "message": "off", "status": 400}).encode()
    async with raw_dify(scripted([http_answer(400, refusal)])) as dify:
        with proxy_of(dify.url) as proxy:
            reply = await transcribe(proxy, http, stream="true")
    assert (reply.status_code, error_of(reply)["code"]) == (400, "speech_to_text_disabled")


@dataclass
class WatchingDify:
    """Begins each answer with ``start``, and notes when the proxy closes the connection."""

    start: bytes
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await read_request(reader, 1) is not None
        writer.write(self.start)
        self.asked.set()
        try:
            await reader.read()
        except ConnectionError:
            pass  # the proxy aborts the connection
        self.left.set()
        writer.close()


async def test_a_file_holds_its_memory_until_its_stream_ends(http: httpx2.AsyncClient) -> None:
    """The status line comes before the file is sent, if the call waits for a slot."""
    dify = WatchingDify(b"")
    large = {"file": ("sound.wav", wav(seconds=48))}
    async with serving(dify.serve) as port:
        settings = {"max_body_bytes": 2_000_000, "body_memory": 6_000_000, "body_memory_timeout": 0.1}
        with proxy_of(f"http://127.0.0.1:{port}/v1", first_event_grace=0, heartbeat_interval=0.1, **settings) as proxy:
            url = f"{proxy.url}/audio/transcriptions"
            data = {"model": "raw", "stream": "true"}
            async with http.stream("POST", url, data=data, files=large) as reply:
                assert reply.status_code == 200
                await asyncio.wait_for(dify.asked.wait(), PATIENCE)
                busy = await http.post(url, data=data, files=large)
                assert (busy.status_code, error_of(busy)["code"]) == (503, "server_busy")
            await asyncio.wait_for(dify.left.wait(), PATIENCE)


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_a_client_that_leaves_ends_the_transcription(stream: str) -> None:
    dify = WatchingDify(b"")
    async with serving(dify.serve) as port:
        with proxy_of(f"http://127.0.0.1:{port}/v1") as proxy:
            async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as leaving:
                asking = asyncio.create_task(transcribe(proxy, leaving, stream=stream))
                await asyncio.wait_for(dify.asked.wait(), PATIENCE)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            await asyncio.wait_for(dify.left.wait(), PATIENCE)


async def test_a_client_that_leaves_ends_the_speech(http: httpx2.AsyncClient) -> None:
    dify = WatchingDify(AUDIO_HEAD + chunk(MP3))
    async with serving(dify.serve) as port:
        with proxy_of(f"http://127.0.0.1:{port}/v1") as proxy:
            async with http.stream("POST", f"{proxy.url}/audio/speech", json=SPEECH) as reply:
                assert await anext(reply.aiter_raw()) == MP3
            await asyncio.wait_for(dify.left.wait(), PATIENCE)


async def test_a_client_that_was_slow_and_leaves_ends_the_speech() -> None:
    audio = MP3 * 50_000
    dify = WatchingDify(AUDIO_HEAD + chunk(audio))
    async with serving(dify.serve) as port:
        with proxy_of(f"http://127.0.0.1:{port}/v1") as proxy:
            proxy.limit_send_buffers(16 * 1024)
            client = Client(proxy.port, "/v1/audio/speech", receive_buffer=16 * 1024)
            await client.ask("Hello", "raw", input="Hello")
            await until(lambda: proxy.buffered_bytes > 0)
            received = 0
            while received < len(audio):
                received += len(await client.read(1 << 16))
            await client.disconnect()
            await asyncio.wait_for(dify.left.wait(), PATIENCE)


class Flood:
    """Answers with audio that never ends, and counts the bytes that the kernel has taken."""

    def __init__(self) -> None:
        self.written = 0

    async def __call__(self, _request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # drain waits until the kernel has all bytes
        writer.write(AUDIO_HEAD + chunk(MP3))
        while True:
            writer.write(chunk(b"\xff\xfb\x90\x64" * 1000))
            await writer.drain()
            self.written += 4000


async def test_a_slow_reader_pauses_dify_and_is_disconnected() -> None:
    flood = Flood()
    body = json.dumps(SPEECH).encode()
    request = (
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with raw_dify(flood) as dify:
        with proxy_of(dify.url, write_timeout=1) as proxy, socket.socket() as client:
            proxy.limit_send_buffers(16 * 1024)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            client.connect(("127.0.0.1", proxy.port))
            client.sendall(request)
            await until(lambda: flood.written > 0)
            held = 0

            def paused() -> bool:
                nonlocal held
                held = max(held, proxy.buffered_bytes)
                return held > 0

            await until(paused)
            await until(lambda: proxy.buffered_bytes == 0)  # the connection was closed
            written = flood.written
    assert held < 256 * 1024
    assert written < 32 * 2**20, "the kernel's buffers of Dify's connection, and not more"


async def test_audio_calls_wait_for_a_slot(limited: Serve, log: DemoLog, http: httpx2.AsyncClient) -> None:
    proxy = limited(1)
    async with occupied(proxy, log) as clients:
        body = {"model": "demo-chat", "input": "Hello"}
        speech = asyncio.create_task(http.post(f"{proxy.url}/audio/speech", json=body))
        await queued(proxy, http, 1)
        transcription = asyncio.create_task(transcribe(proxy, http, model="demo-chat"))
        await queued(proxy, http, 2)
        assert not [request for request in log.requests if "audio" in request.path]
        await clients[0].disconnect()
        replies = await asyncio.gather(speech, transcription)
    assert [reply.status_code for reply in replies] == [200, 200]
    assert [reply.headers["x-queue-position"] for reply in replies] == ["1", "2"]


async def test_a_queue_that_takes_too_long(limited: Serve, log: DemoLog, http: httpx2.AsyncClient) -> None:
    proxy = limited(1, queue_timeout=0.1)
    async with occupied(proxy, log):
        reply = await http.post(f"{proxy.url}/audio/speech", json={"model": "demo-chat", "input": "Hello"})
        assert (reply.status_code, error_of(reply)["code"]) == (503, "queue_timeout")


async def test_an_audio_call_has_a_slot_until_dify_has_answered(http: httpx2.AsyncClient) -> None:
    answered = asyncio.Event()

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.wait_for(answered.wait(), PATIENCE)
        writer.write(http_answer(200, b'{"text": "hi"}'))

    async with raw_dify(answer) as dify:
        with proxy_of(dify.url, dify_max_concurrent=2) as proxy:
            asking = asyncio.create_task(transcribe(proxy, http))
            async with asyncio.timeout(PATIENCE):
                while (await status(proxy, http))["in_use"] != 1:
                    pass
            answered.set()
            assert (await asking).json() == {"text": "hi"}
            async with asyncio.timeout(PATIENCE):
                while (await status(proxy, http))["in_use"]:
                    pass
