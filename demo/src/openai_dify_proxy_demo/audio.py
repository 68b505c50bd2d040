"""Speech to text and text to speech without a model: a transcription names the file, and each word is a tone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from openai_dify_proxy_demo.calls import SCRIPTED_ERRORS, Call, read_multipart
from openai_dify_proxy_demo.replies import ApiError, version_headers

AUDIO_TYPES = frozenset(f"audio/{name}" for name in ("mp3", "m4a", "x-m4a", "wav", "amr", "mpga"))
"""The MIME types that Dify accepts. It checks only the label, as recorded on 1.16."""

MAX_AUDIO_BYTES = 30 * 1024 * 1024

WORDS_PER_PIECE = 20

WORD = base64.b64decode(
    "//MoxAAOiJ4oAVlIAc86eVxt21h0V1doYGQscVR1QCzhiwnn6fM40ka8ZxsgJdk9yy+7O3HDAoFAoQIECBhG3MPDw8AAAAQA//MoxAAOcIZcAZ3Y"
    "AN40k3rspBoAS8RgrSmBADmBgoGnR2GDy9HISXmJ5bHzJcmUgSSN8zJ1DCu4ZBFA4eh3//7eAAJM1j0w//MoxAAOiHI0Ad4QAP//+5GnCm5ABQAD"
    "ALAwMEEAIwQAbzDOItNZIcA5GyUjGTGqMQoMswqhTwqEWYHABJfFsTrU0yKO//QA//MoxAAMgG4wAOe2gP/W+6pXeYiiaIQIFgqBRkYUOplu5GTZ"
    "5Maoo8xgoAtmHhhwFyZSXg5CSRcaK0dgQ//vTEFNRTQuMSAo//MoxAAOKHY0AN+0gKtztLct0VHagZphe8ADRk6ScxaGhXXEZjwPxgnglmXgm4/H"
    "LfFp2GP3JrXa10EiQVMMdwz/////cmII//MoxAANoGooAN+2gKSkwqYWKCGWtKbISQUDGGB5mJgb9umQCSiadwgJhkgHhdBMpyDrTwBCK5ndj1kV"
    "H/6f/+n//oTEFNRQ//MoxAAOAIYgANcygd0tLKYzGYZcl9U5nOC4oeFmDqHnMm4o6aiGhoczHQuZdABLDmYLZbGYdjMupqampqYKCQUFBQUKTEFN"
)
"""A tone of a quarter of a second: seven frames of MP3, 16 kHz mono, which can be repeated."""

_SCRIPTED_ERROR = re.compile(r"\bERROR(?::(\w+))?\b")


def audio_switches(mode: str) -> dict[str, dict[str, object]]:
    """Return the features of `GET /parameters`. A New Agent has neither."""
    if mode == "agent":
        return {"speech_to_text": {"enabled": False}, "text_to_speech": {"enabled": False}}
    voice = {"enabled": True, "language": "en-US", "voice": "alloy"}
    return {"speech_to_text": {"enabled": True}, "text_to_speech": voice}


async def audio_to_text(call: Call) -> Response:
    """Transcribe the part named `file` as its type, size and hash."""
    if call.app.mode == "agent":
        raise ApiError(400, "speech_to_text_disabled", "Speech to text is disabled.")
    file, _ = read_multipart(await call.request.body(), call.request.headers.get("content-type", ""))
    if file is None:
        raise ApiError(400, "no_audio_uploaded", "Please upload your audio.")
    _, kind, content = file
    if kind not in AUDIO_TYPES:
        raise ApiError(415, "unsupported_audio_type", "Audio type not allowed.")
    if len(content) > MAX_AUDIO_BYTES:
        raise ApiError(413, "audio_too_large", "Audio size larger than 30 mb")
    digest = hashlib.sha256(content).hexdigest()[:12]
    return call.reply({"text": f"heard {kind}, {len(content)} bytes, sha {digest}"})


async def text_to_audio(call: Call) -> Response:
    """Speak `text` as an MP3 with a tone per word, and with the text and the voice as title and artist.

    `ERROR` in the text fails as in a question.
    """
    body = call.body if isinstance(call.body, dict) else {}
    if call.app.mode == "agent":
        raise ApiError(400, "invalid_param", "TTS is not enabled")
    text = body.get("text")
    if not isinstance(text, str) or not text:
        raise ApiError(400, "invalid_param", "Text is required")
    if found := _SCRIPTED_ERROR.search(text):
        raise SCRIPTED_ERRORS.get(found[1] or "") or ApiError(400, "completion_request_error", "[demo] Bad Request")
    pieces = _spoken(text, str(body.get("voice") or "alloy"), call.state.timing.token)
    return StreamingResponse(pieces, 200, version_headers(call.dialect), "audio/mpeg")


async def _spoken(text: str, voice: str, pause: float) -> AsyncIterator[bytes]:
    yield _tag(text, voice)
    words = len(text.split())
    for start in range(0, words, WORDS_PER_PIECE):
        await asyncio.sleep(pause)
        yield WORD * min(WORDS_PER_PIECE, words - start)


def _tag(title: str, artist: str) -> bytes:
    """Return an ID3 tag of version 2.4."""
    frames = b"".join(
        name + _syncsafe(len(value) + 1) + b"\0\0\3" + value
        for name, value in ((b"TIT2", title.encode()), (b"TPE1", artist.encode()))
    )
    return b"ID3\4\0\0" + _syncsafe(len(frames)) + frames


def _syncsafe(number: int) -> bytes:
    """Return four bytes with seven bits of the number each."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))
