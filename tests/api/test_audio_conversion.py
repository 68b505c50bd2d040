"""Speech converted with a real ffmpeg, and checked with its decoder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from openai import AsyncOpenAI
from openai.types.audio import SpeechCreateParams

from openai_dify_proxy.settings import Settings
from openai_dify_proxy_demo import DemoServer
from tests.api.audio_requests import decoded, encoded, link_ffmpeg, loudness, wav
from tests.api.chat_requests import error_of
from tests.api.raw_client import until
from tests.api.servers import LAST_CHUNK, ProxyServer, RawRequest, chunk, demo_apps, http_answer, raw_dify, scripted
from tests.api.test_audio_streams import AUDIO_HEAD, MP3, proxy_of, speak
from tests.limits import PATIENCE

FORMATS = {
    "opus": ("audio/opus", b"OggS", ()),
    "aac": ("audio/aac", b"\xff\xf1", ()),
    "flac": ("audio/flac", b"fLaC", ()),
    "wav": ("audio/wav", b"RIFF", ()),
    "pcm": ("audio/pcm", b"", ("-f", "s16le", "-ar", "24000", "-ac", "1")),
}


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an ffmpeg on the PATH."""
    monkeypatch.setenv("PATH", f"{link_ffmpeg(tmp_path)}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def converting(demo: DemoServer, path: None) -> Iterator[ProxyServer]:
    """A proxy for the demo."""
    settings = Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), audio_app="demo-chat")
    with ProxyServer(settings) as proxy:
        yield proxy


@pytest.fixture
def speech() -> bytes:
    """A tone of a second."""
    return wav(seconds=1)


@pytest.mark.parametrize("response_format", FORMATS)
async def test_speech_in_other_formats(speech: bytes, response_format: str, http: httpx2.AsyncClient) -> None:
    kind, start, options = FORMATS[response_format]
    mp3 = await encoded(speech, "-f", "mp3")
    async with raw_dify(scripted([http_answer(200, mp3, "audio/mpeg")])) as dify:
        with proxy_of(dify.url) as proxy:
            reply = await speak(proxy, http, response_format=response_format)
    assert reply.headers["content-type"] == kind
    assert reply.content.startswith(start)
    samples = await decoded(reply.content, *options)
    assert len(samples) / 24_000 == pytest.approx(1, abs=0.25)
    assert loudness(samples) == pytest.approx(9000 / 2**0.5, rel=0.15), "the loudness of a sine"


@pytest.mark.parametrize("options", [("-f", "wav"), ("-f", "ogg", "-c:a", "libopus"), ("-f", "flac"), ("-f", "adts")])
async def test_audio_of_dify_in_other_formats(
    speech: bytes, options: tuple[str, ...], http: httpx2.AsyncClient
) -> None:
    """Some providers send no MP3, whatever Dify's content type says."""
    sent = await encoded(speech, *options)
    async with raw_dify(scripted([http_answer(200, sent, "audio/mpeg")])) as dify:
        with proxy_of(dify.url) as proxy:
            reply = await speak(proxy, http, response_format="wav")
    assert len(await decoded(reply.content)) / 24_000 == pytest.approx(1, abs=0.25)


async def test_converted_speech_arrives_while_dify_speaks(http: httpx2.AsyncClient) -> None:
    seen = asyncio.Event()
    mp3 = await encoded(wav(seconds=20), "-f", "mp3", "-b:a", "128k")

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(AUDIO_HEAD + chunk(mp3))
        await asyncio.wait_for(seen.wait(), PATIENCE)
        writer.write(LAST_CHUNK)

    async with raw_dify(answer) as dify:
        with proxy_of(dify.url) as proxy:
            body = {"model": "raw", "input": "Hello", "response_format": "opus"}
            async with http.stream("POST", f"{proxy.url}/audio/speech", json=body) as reply:
                parts = reply.aiter_raw()
                assert (await anext(parts)).startswith(b"OggS")
                seen.set()
                assert [part async for part in parts]


async def test_audio_that_cannot_be_converted(http: httpx2.AsyncClient) -> None:
    for body, kind in ((b"ID3\4\0\0\0\0\0\0" + b"no audio at all" * 100, "audio/mpeg"), (b"?" * 99, "audio/x-new")):
        async with raw_dify(scripted([http_answer(200, body, kind)])) as dify:
            with proxy_of(dify.url) as proxy:
                reply = await speak(proxy, http, response_format="wav")
        assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
        assert reply.headers["x-should-retry"] == "false"


async def test_a_playlist_is_not_opened(http: httpx2.AsyncClient) -> None:
    """ffmpeg would connect to the addresses in it."""
    requests: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n"
        for body in (playlist.encode(), b"ID3\4\0\0\0\0\0\0" + playlist.encode()):
            async with raw_dify(scripted([http_answer(200, body, "audio/mpeg")])) as dify:
                with proxy_of(dify.url) as proxy:
                    assert (await speak(proxy, http, response_format="wav")).status_code == 502
    assert not requests


async def test_speech_that_breaks_off_breaks_off_converted(http: httpx2.AsyncClient) -> None:
    mp3 = await encoded(wav(seconds=20), "-f", "mp3")
    async with raw_dify(scripted([AUDIO_HEAD, chunk(mp3)])) as dify:
        with proxy_of(dify.url) as proxy, pytest.raises(httpx2.RemoteProtocolError):
            await speak(proxy, http, response_format="wav")


def running() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name().startswith("ffmpeg")]


async def test_ffmpeg_ends_with_its_request(http: httpx2.AsyncClient) -> None:
    mp3 = await encoded(wav(seconds=20), "-f", "mp3")

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(AUDIO_HEAD + chunk(mp3))
        await asyncio.sleep(PATIENCE)

    async with raw_dify(answer) as dify:
        with proxy_of(dify.url) as proxy:
            body = {"model": "raw", "input": "Hello", "response_format": "wav"}
            async with http.stream("POST", f"{proxy.url}/audio/speech", json=body) as reply:
                assert (await anext(reply.aiter_raw())).startswith(b"RIFF")
                assert len(running()) == 1
            await until(lambda: not running())


async def test_the_official_client_writes_a_file_that_plays(converting: ProxyServer, tmp_path: Path) -> None:
    async with converting.client() as client:
        await write_speech(client, tmp_path / "speech.opus")
    samples = await decoded((tmp_path / "speech.opus").read_bytes())
    assert len(samples) / 24_000 == pytest.approx(0.75, abs=0.1)
    assert loudness(samples) > 1000


async def write_speech(client: AsyncOpenAI, path: Path) -> None:
    parameters: SpeechCreateParams = {
        "model": "tts-1",
        "voice": "alloy",
        "input": "Hello dear world",
        "response_format": "opus",
    }
    async with client.audio.speech.with_streaming_response.create(**parameters) as reply:
        await reply.stream_to_file(path)


async def test_a_busy_converter_answers_503(http: httpx2.AsyncClient) -> None:
    """All permits are taken by speeches that do not end."""

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(AUDIO_HEAD + chunk(MP3))
        await asyncio.sleep(PATIENCE)

    async with raw_dify(answer) as dify:
        with proxy_of(dify.url, queue_timeout=0.2) as proxy:
            asking = [asyncio.create_task(speak(proxy, http, response_format="wav")) for _ in range(8)]
            await until(lambda: len(running()) == 8)
            reply = await speak(proxy, http, response_format="wav")
            assert (reply.status_code, error_of(reply)["code"]) == (503, "server_busy")
            assert len(dify.turns) == 8
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await until(lambda: not running())
