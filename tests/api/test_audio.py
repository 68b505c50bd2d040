"""``/v1/audio/*`` with the official client and the demo Dify."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy.settings import SecretStr
from openai_dify_proxy_demo import DemoLog
from openai_dify_proxy_demo.log import LoggedRequest
from tests.api.audio_requests import decoded, encoded, heard, loudness, wav
from tests.api.chat_requests import chat_body, error_of
from tests.api.conftest import Serve
from tests.api.servers import ProxyServer

WAV = wav()


async def transcribed(client: AsyncOpenAI, audio: bytes, name: str = "sound.webm", model: str = "demo-chat") -> str:
    return (await client.audio.transcriptions.create(model=model, file=(name, audio))).text


def audio_calls(log: DemoLog) -> list[LoggedRequest]:
    return [call for call in log.requests if call.path.endswith(("/audio-to-text", "/text-to-audio"))]


async def test_a_recording_reaches_dify_byte_by_byte(client: AsyncOpenAI) -> None:
    assert await transcribed(client, WAV) == heard(WAV, "audio/wav")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (("-f", "mp3"), "audio/mp3"),
        (("-f", "mp3", "-id3v2_version", "0", "-write_xing", "0"), "audio/mp3"),
        (("-f", "adts"), "audio/mp3"),
        (("-f", "flac"), "audio/mp3"),
        (("-f", "ogg", "-c:a", "libopus"), "audio/mp3"),
        (("-f", "webm", "-c:a", "libopus"), "audio/mp3"),
        (("-f", "ipod", "-movflags", "frag_keyframe+empty_moov"), "audio/m4a"),
        (("-f", "mp4", "-movflags", "frag_keyframe+empty_moov"), "audio/m4a"),
    ],
    ids=["mp3", "mp3 without a tag", "aac", "flac", "ogg", "webm", "m4a", "mp4"],
)
async def test_a_file_is_labelled_by_its_content(
    client: AsyncOpenAI, options: tuple[str, ...], kind: str, log: DemoLog
) -> None:
    """Dify judges only the label of a file, and passes its bytes on to the model."""
    audio = await encoded(WAV, *options)
    assert await transcribed(client, audio, "misnamed.txt") == heard(audio, kind)


@pytest.mark.parametrize("model", ["demo-chat@1.11", "demo-advanced-chat", "demo-completion", "demo-workflow"])
async def test_every_mode_transcribes(client: AsyncOpenAI, model: str) -> None:
    assert await transcribed(client, WAV, model=model) == heard(WAV, "audio/wav")


async def test_a_large_recording(client: AsyncOpenAI) -> None:
    audio = wav(seconds=90)
    assert len(audio) > 2_000_000
    assert await transcribed(client, audio) == heard(audio, "audio/wav")


async def test_formats_of_a_transcription(client: AsyncOpenAI) -> None:
    text = heard(WAV, "audio/wav")
    file = ("sound.wav", WAV)
    plain = await client.audio.transcriptions.create(model="demo-chat", file=file, response_format="text")
    assert plain == f"{text}\n"
    verbose = await client.audio.transcriptions.create(
        model="demo-chat", file=file, response_format="verbose_json", language="en"
    )
    assert (verbose.text, verbose.language, verbose.segments) == (text, "en", None)
    stream = await client.audio.transcriptions.create(model="demo-chat", file=file, stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[0].type == "transcript.text.delta"
    assert events[0].delta == text
    assert events[1].type == "transcript.text.done"
    assert events[1].text == text


@pytest.mark.parametrize("response_format", ["srt", "vtt", "diarized_json"])
async def test_formats_with_times_are_rejected(
    client: AsyncOpenAI, response_format: openai.types.AudioResponseFormat, log: DemoLog
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.audio.transcriptions.create(
            model="demo-chat", file=("sound.wav", WAV), response_format=response_format
        )
    assert (caught.value.param, caught.value.code) == ("response_format", "unsupported_parameter")
    assert not audio_calls(log)


async def test_fields_without_effect_are_named(client: AsyncOpenAI) -> None:
    reply = await client.audio.transcriptions.with_raw_response.create(
        model="demo-chat", file=("sound.wav", WAV), language="de", prompt="Ada", temperature=0.3
    )
    assert reply.headers["x-unsupported-parameters"] == "language, prompt, temperature"
    speech = await client.audio.speech.with_raw_response.create(
        model="demo-chat", voice="alloy", input="Hello", speed=2, instructions="Whisper."
    )
    assert speech.headers["x-unsupported-parameters"] == "instructions, speed"


async def test_a_chat_that_asks_for_audio_gets_text(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    body = chat_body("hi", modalities=["text", "audio"], audio={"voice": "alloy", "format": "mp3"})
    reply = await http.post(f"{proxy.url}/chat/completions", json=body)
    assert reply.status_code == 200
    assert reply.headers["x-unsupported-parameters"] == "audio, modalities"


INVALID_FILES = {
    "no audio": (b"hello, this is a text", 400, "unsupported_audio_type"),
    "a playlist": (b"#EXTM3U\nhttp://127.0.0.1/", 400, "unsupported_audio_type"),
    "an empty file": (b"", 400, None),
    "a file above 30 MiB": (b"ID3".ljust(30 * 2**20 + 1, b"\0"), 413, "request_too_large"),
}


@pytest.mark.parametrize(("audio", "status", "code"), INVALID_FILES.values(), ids=INVALID_FILES)
async def test_an_invalid_file_does_not_reach_dify(
    client: AsyncOpenAI, log: DemoLog, audio: bytes, status: int, code: str | None
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await transcribed(client, audio)
    assert (caught.value.status_code, caught.value.param, caught.value.code) == (status, "file", code)
    assert not audio_calls(log)


async def test_requests_that_are_no_transcription(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    url = f"{proxy.url}/audio/transcriptions"
    as_json = await http.post(url, json={"model": "demo-chat"})
    assert (as_json.status_code, error_of(as_json)["code"]) == (415, "unsupported_media_type")
    without = await http.post(url, files={"model": (None, "demo-chat")})
    assert (without.status_code, error_of(without)["param"]) == (400, "file")
    as_text = await http.post(url, files={"file": (None, "text")})
    assert (as_text.status_code, error_of(as_text)["code"]) == (400, "missing_required_parameter")
    two = await http.post(url, files=[("file", ("a.wav", WAV)), ("file", ("b.wav", WAV))])
    assert two.status_code == 400
    broken = await http.post(
        url, content=b"--x\r\nnonsense", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code == 400
    assert not audio_calls(log)


async def test_translations_name_an_alternative(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    reply = await http.post(f"{proxy.url}/audio/translations", files={"file": ("a.wav", WAV)})
    assert (reply.status_code, error_of(reply)["code"]) == (400, "unsupported_endpoint")
    assert "/v1/audio/transcriptions" in error_of(reply)["message"]


async def test_speech_is_an_mp3_that_plays(client: AsyncOpenAI, log: DemoLog) -> None:
    reply = await client.audio.speech.create(model="demo-chat", voice="alloy", input="Hello dear world")
    assert reply.response.headers["content-type"] == "audio/mpeg"
    samples = await decoded(reply.content)
    assert len(samples) / 24_000 == pytest.approx(0.75, abs=0.1), "three words of a quarter of a second"
    assert loudness(samples) > 1000
    (call,) = audio_calls(log)
    assert call.path == "/v1/text-to-audio"
    assert call.body["text"] == "Hello dear world"
    assert call.body["user"].startswith("proxy-")


async def test_speech_as_events(proxy: ProxyServer, client: AsyncOpenAI, http: httpx2.AsyncClient) -> None:
    whole = await client.audio.speech.create(model="demo-chat", voice="alloy", input="Hello")
    body = {"model": "demo-chat", "voice": "alloy", "input": "Hello", "stream_format": "sse"}
    reply = await http.post(f"{proxy.url}/audio/speech", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [frame.removeprefix("data: ") for frame in reply.text.removesuffix("\n\n").split("\n\n")]
    parsed = [json.loads(event) for event in events]
    assert parsed[-1] == {"type": "speech.audio.done"}
    assert {event["type"] for event in parsed[:-1]} == {"speech.audio.delta"}
    assert b"".join(b64decode(event["audio"]) for event in parsed[:-1]) == whole.content


@pytest.mark.parametrize(
    ("voice", "sent"),
    [("alloy", "en-US-AvaNeural"), ("echo", None), ("zh-CN-XiaoxiaoNeural", "zh-CN-XiaoxiaoNeural")],
)
async def test_voices_are_mapped(serve: Serve, log: DemoLog, voice: str, sent: str | None) -> None:
    async with serve(audio_voices={"alloy": "en-US-AvaNeural", "echo": ""}).client() as client:
        await client.audio.speech.create(model="demo-chat", voice=voice, input="Hello")
    (call,) = audio_calls(log)
    assert call.body.get("voice") == sent


async def test_features_that_are_off_are_named(client: AsyncOpenAI, log: DemoLog) -> None:
    with pytest.raises(openai.BadRequestError) as hearing:
        await transcribed(client, WAV, model="demo-agent")
    assert (hearing.value.param, hearing.value.code) == ("model", "speech_to_text_disabled")
    assert "'Speech to Text'" in hearing.value.message
    with pytest.raises(openai.BadRequestError) as speaking:
        await client.audio.speech.create(model="demo-agent", voice="alloy", input="Hello")
    assert (speaking.value.param, speaking.value.code) == ("model", "text_to_speech_disabled")
    assert "'Text to Speech'" in speaking.value.message
    assert len(audio_calls(log)) == 2


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("ERROR:limit", 429, "rate_limit_exceeded"),
        ("ERROR:provider", 503, "provider_not_initialize"),
        ("ERROR:quota", 429, "insufficient_quota"),
        ("ERROR:disabled", 403, "forbidden"),
        ("ERROR:crash", 502, "unknown"),
        ("ERROR", 502, "completion_request_error"),
    ],
)
async def test_failures_of_dify_keep_their_status(
    proxy: ProxyServer, http: httpx2.AsyncClient, text: str, status: int, code: str
) -> None:
    reply = await http.post(f"{proxy.url}/audio/speech", json={"model": "demo-chat", "input": text})
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)


async def test_invalid_speech_requests(proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog) -> None:
    for body, param in (
        ({"model": "demo-chat"}, "input"),
        ({"model": "demo-chat", "input": ""}, "input"),
        ({"model": "demo-chat", "input": "Hi", "speed": 5}, "speed"),
        ({"model": "demo-chat", "input": "Hi", "voice": 5}, "voice"),
        ({"model": "demo-chat", "input": "Hi", "response_format": "midi"}, "response_format"),
        ({"model": "nobody", "input": "Hi"}, "model"),
    ):
        reply = await http.post(f"{proxy.url}/audio/speech", json=body)
        assert reply.status_code in (400, 404)
        assert error_of(reply)["param"] == param
    assert not audio_calls(log)


async def test_without_ffmpeg_there_is_only_mp3(
    serve: Serve, log: DemoLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with serve().client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.audio.speech.create(model="demo-chat", voice="alloy", input="Hello", response_format="wav")
    assert (caught.value.param, caught.value.code) == ("response_format", "unsupported_parameter")
    assert "ffmpeg" in caught.value.message
    assert not audio_calls(log)


async def test_other_models_are_served_by_the_app_for_sound(serve: Serve, log: DemoLog) -> None:
    async with serve(audio_app="demo-workflow", default_app="demo-chat").client() as client:
        await transcribed(client, WAV, model="whisper-1")
        await client.audio.speech.create(model="tts-1", voice="alloy", input="Hello")
        await client.audio.speech.create(model="demo-completion", voice="alloy", input="Hello")
    assert [call.app for call in audio_calls(log)] == ["demo-workflow", "demo-workflow", "demo-completion"]


async def test_a_dify_key_serves_sound(serve: Serve, log: DemoLog) -> None:
    async with serve(audio_app="demo-workflow").client("app-demo-chat") as client:
        assert await transcribed(client, WAV, model="whisper-1") == heard(WAV, "audio/wav")
        await client.audio.speech.create(model="tts-1", voice="alloy", input="Hello")
    assert [call.app for call in audio_calls(log)] == ["demo-chat", "demo-chat"]
    async with serve().client("app-unknown", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await transcribed(client, WAV)


async def test_each_end_user_is_another_user_of_dify(client: AsyncOpenAI, log: DemoLog) -> None:
    for end_user in ("anna", "bert", "anna"):
        await client.audio.speech.create(
            model="demo-chat", voice="alloy", input="Hi", extra_headers={"X-OpenWebUI-User-Id": end_user}
        )
    first, second, third = (call.body["user"] for call in audio_calls(log))
    assert first == third != second


async def test_keys_are_required(serve: Serve, http: httpx2.AsyncClient, log: DemoLog) -> None:
    url = f"{serve(api_keys=(SecretStr('sk-one'),)).url}/audio"
    for reply in (
        await http.post(f"{url}/speech", json={"model": "demo-chat", "input": "Hi"}),
        await http.post(f"{url}/transcriptions", files={"file": ("a.wav", WAV)}),
    ):
        assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
    assert not audio_calls(log)


async def test_web_pages_of_other_origins_cannot_send_forms(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog
) -> None:
    for headers, status in (
        ({"Origin": "https://evil.example"}, 415),
        ({"Host": "rebound.example"}, 403),
    ):
        reply = await http.post(
            f"{proxy.url}/audio/transcriptions",
            files={"file": ("a.wav", WAV), "model": (None, "demo-chat")},
            headers=headers,
        )
        assert reply.status_code == status
    assert not audio_calls(log)


async def test_lists_for_open_webui(serve: Serve, http: httpx2.AsyncClient) -> None:
    """Open WebUI reads ``models`` and ``voices``, and sends no key."""
    settings = {"audio_app": "demo-chat", "audio_voices": {"narrator": "x"}}
    guarded = serve(api_keys=(SecretStr("sk-one"),), **settings).url
    voices = (await http.get(f"{guarded}/audio/voices")).json()["voices"]
    assert voices[:2] == [{"id": "narrator", "name": "narrator"}, {"id": "alloy", "name": "alloy"}]
    anonymous = (await http.get(f"{guarded}/audio/models")).json()
    assert [model["id"] for model in anonymous["models"]] == ["gpt-4o-mini-tts", "tts-1", "tts-1-hd"]
    assert anonymous["data"] == anonymous["models"]
    assert {*anonymous["data"][0]} == {"id", "name", "object", "created", "owned_by"}
    known = await http.get(f"{guarded}/audio/models", headers={"Authorization": "Bearer sk-one"})
    assert "demo-workflow" in [model["id"] for model in known.json()["models"]]
    keyed = await http.get(f"{guarded}/audio/models", headers={"Authorization": "Bearer app-demo-chat"})
    assert [model["id"] for model in keyed.json()["models"]] == ["demo-chat"]


async def test_an_app_that_cannot_speak_is_not_listed(serve: Serve, http: httpx2.AsyncClient, log: DemoLog) -> None:
    proxy = serve()
    await http.get(f"{proxy.url}/models/demo-agent")  # reads the profile
    names = [model["id"] for model in (await http.get(f"{proxy.url}/audio/models")).json()["models"]]
    assert "demo-chat" in names
    assert not {"demo-agent", "tts-1"} & {*names}


async def test_a_web_page_cannot_read_the_lists(proxy: ProxyServer, http: httpx2.AsyncClient) -> None:
    for path in ("models", "voices"):
        reply = await http.get(f"{proxy.url}/audio/{path}", headers={"Host": "rebound.example"})
        assert (reply.status_code, error_of(reply)["code"]) == (403, "host_not_allowed")
