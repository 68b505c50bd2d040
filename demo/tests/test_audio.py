"""Transcriptions and speech of the demo, beside recordings of a real Dify 1.16."""

from __future__ import annotations

import hashlib

import pytest

from demo.tests.conftest import Caller
from demo.tests.recorded import recording
from openai_dify_proxy_demo import DEMO_APPS

VERSION = "1.16.1-main-2026-08-19"

AUDIO = bytes(range(256)) * 40 + b"\r\n--x\r\n\n"


def transcribe(demo: Caller, app: str, kind: str, audio: bytes = AUDIO) -> tuple[int, object]:
    reply = demo.http.post(
        f"{demo.server.url}/audio-to-text",
        headers=demo.headers(app),
        files={"file": ("a.mp3", audio, kind), "user": (None, "u1")},
    )
    return reply.status_code, reply.json()


RECORDED = [
    ("audio-to-text-audiomp3-chat", "demo-chat", "audio/mp3"),
    ("audio-to-text-audiomp3-flow", "demo-advanced-chat", "audio/mp3"),
    ("audio-to-text", "demo-chat", "audio/wav"),
    ("audio-to-text-audio-x-m4a", "demo-chat", "audio/x-m4a"),
    ("audio-to-text-mp3-flow", "demo-advanced-chat", "audio/mpeg"),
    ("audio-to-text-workflow", "demo-workflow", "audio/mpeg"),
    ("audio-to-text-audio-flac", "demo-chat", "audio/flac"),
    ("audio-to-text-audio-ogg", "demo-chat", "audio/ogg"),
    ("audio-to-text-audio-webm", "demo-chat", "audio/webm"),
    ("audio-to-text-video-mp4", "demo-chat", "video/mp4"),
    ("audio-to-text-octet", "demo-chat", "application/octet-stream"),
    ("audio-to-text-newagent", "demo-agent", "audio/mpeg"),
]


@pytest.mark.parametrize(("name", "app", "kind"), RECORDED, ids=[name for name, *_ in RECORDED])
def test_a_file_is_judged_as_recorded(demo: Caller, name: str, app: str, kind: str) -> None:
    recorded = recording(VERSION, name)
    status, body = transcribe(demo, app, kind)
    assert status == recorded.status
    if status == 200:
        digest = hashlib.sha256(AUDIO).hexdigest()[:12]
        assert body == {"text": f"heard {kind}, {len(AUDIO)} bytes, sha {digest}"}
        assert body.keys() == recorded.json().keys()
    else:
        assert body == recorded.json()


def test_a_form_without_a_file_and_a_large_file_are_rejected(demo: Caller) -> None:
    reply = demo.post("/audio-to-text", "demo-chat", {})
    assert (reply.status_code, reply.json()["code"]) == (400, "no_audio_uploaded")
    status, body = transcribe(demo, "demo-chat", "audio/mp3", bytes(30 * 2**20 + 1))
    assert (status, body) == (
        413,
        {"code": "audio_too_large", "message": "Audio size larger than 30 mb", "status": 413},
    )


SPOKEN = [
    ("text-to-audio", "demo-chat", {"text": "Hello you"}),
    ("text-to-audio-streaming", "demo-advanced-chat", {"text": "Hello you", "streaming": True}),
    ("text-to-audio-workflow", "demo-workflow", {"text": "Hello"}),
    ("text-to-audio-badvoice", "demo-chat", {"text": "Hello", "voice": "nosuch"}),
]


@pytest.mark.parametrize(("name", "app", "body"), SPOKEN, ids=[name for name, *_ in SPOKEN])
def test_speech_has_the_recorded_headers(demo: Caller, name: str, app: str, body: dict[str, object]) -> None:
    recorded = recording(VERSION, name)
    reply = demo.post("/text-to-audio", app, {**body, "user": "u1"})
    assert reply.status_code == recorded.status
    for header in ("content-type", "transfer-encoding", "x-version", "x-env"):
        assert reply.headers[header] == recorded.headers[header]
    assert reply.content.startswith(b"ID3")
    assert str(body["text"]).encode() in reply.content
    assert str(body.get("voice", "alloy")).encode() in reply.content


def test_each_word_is_a_tone(demo: Caller) -> None:
    words = demo.post("/text-to-audio", "demo-chat", {"text": "one " * 50, "user": "u1"}).content
    frames = words.partition(b"\xff\xf3")[1:]
    assert len(b"".join(frames)) == 50 * 7 * 72, "seven frames of 72 bytes each"


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        ({}, 400, "invalid_param", "Text is required"),
        ({"text": ""}, 400, "invalid_param", "Text is required"),
        ({"text": "ERROR"}, 400, "completion_request_error", "[demo] Bad Request"),
        ({"text": "ERROR:crash"}, 500, "unknown", "Internal Server Error"),
    ],
)
def test_speech_that_fails(demo: Caller, body: dict[str, str], status: int, code: str, message: str) -> None:
    reply = demo.post("/text-to-audio", "demo-chat", {**body, "user": "u1"})
    assert reply.status_code == status
    assert reply.json() == {"code": code, "message": message, "status": status}


def test_a_new_agent_does_not_speak(demo: Caller) -> None:
    """Measured on a real one: its message is the same, and nothing was recorded."""
    reply = demo.post("/text-to-audio", "demo-agent", {"text": "Hello", "user": "u1"})
    assert (reply.status_code, reply.json()["message"]) == (400, "TTS is not enabled")


@pytest.mark.parametrize("app", [app.name for app in DEMO_APPS])
def test_the_switches_tell_whether_an_app_has_sound(demo: Caller, app: str) -> None:
    parameters = demo.get("/parameters", app).json()
    enabled = app != "demo-agent"
    assert parameters["speech_to_text"] == {"enabled": enabled}
    assert parameters["text_to_speech"]["enabled"] is enabled
    assert transcribe(demo, app, "audio/mp3")[0] == (200 if enabled else 400)
