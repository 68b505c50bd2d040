"""Replay recorded answers to audio calls through the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from openai_dify_proxy.settings import Settings
from tests.api.audio_requests import wav
from tests.api.chat_requests import error_of
from tests.api.servers import ProxyServer, app_settings, read_request, serving
from tests.limits import PATIENCE
from tests.recordings.archive import named
from tests.recordings.replay import MANNERS, Manner, wire

FOLDER = "dify-1.16.1-main-2026-08-19"

WAV = wav()


@asynccontextmanager
async def replayed(name: str, manner: Manner) -> AsyncIterator[tuple[str, httpx2.AsyncClient]]:
    """Run a proxy in front of a Dify that answers each request with a recording; yield its URL and a client."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader, 1)
        assert request is not None
        assert request.path == f"/v1{named(FOLDER, name).request['path']}"
        for part in wire(named(FOLDER, name), manner):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with serving(serve) as port:
        url = f"http://127.0.0.1:{port}/v1"
        settings = Settings(dify_api_url=url, apps={"app": app_settings("app", "app-x", url)})
        with ProxyServer(settings) as proxy:
            async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as http:
                yield f"{proxy.url}/audio", http


HEARD = ("audio-to-text", "audio-to-text-audio-x-m4a", "audio-to-text-audiomp3-chat", "audio-to-text-audiomp3-flow")


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("name", HEARD)
async def test_a_transcription_has_the_recorded_text(name: str, manner: Manner) -> None:
    async with replayed(name, manner) as (url, http):
        reply = await http.post(f"{url}/transcriptions", files={"file": ("a.wav", WAV), "model": (None, "app")})
    assert reply.json() == named(FOLDER, name).json()


REFUSED = {
    "audio-to-text-newagent": (400, "speech_to_text_disabled"),
    **dict.fromkeys(
        (
            *("audio-to-text-audio-flac", "audio-to-text-audio-ogg", "audio-to-text-audio-webm"),
            *("audio-to-text-mp3-flow", "audio-to-text-octet", "audio-to-text-video-mp4", "audio-to-text-workflow"),
        ),
        (415, "unsupported_audio_type"),
    ),
}


@pytest.mark.parametrize(("name", "expected"), REFUSED.items(), ids=REFUSED)
async def test_a_refusal_keeps_its_code(name: str, expected: tuple[int, str]) -> None:
    async with replayed(name, "whole") as (url, http):
        reply = await http.post(f"{url}/transcriptions", files={"file": ("a.wav", WAV), "model": (None, "app")})
    assert (reply.status_code, error_of(reply)["code"]) == expected


SPOKEN = (
    *("text-to-audio", "text-to-audio-badvoice", "text-to-audio-message-id"),
    *("text-to-audio-streaming", "text-to-audio-workflow"),
)


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("name", SPOKEN)
async def test_speech_has_the_recorded_bytes(name: str, manner: Manner) -> None:
    async with replayed(name, manner) as (url, http):
        reply = await http.post(f"{url}/speech", json={"model": "app", "input": "Hello"})
    assert reply.content == named(FOLDER, name).body
    assert reply.headers["content-type"] == "audio/mpeg"
