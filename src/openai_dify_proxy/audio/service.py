"""Runs audio calls: each with a slot of its Dify, like a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from secrets import token_hex

from msgspec import Struct, json

from openai_dify_proxy.audio.answer import AudioAnswer, ReadPart
from openai_dify_proxy.audio.conversion import Converter
from openai_dify_proxy.errors import UpstreamGarbled
from openai_dify_proxy.limits.accounts import Work
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.audio.formats import AudioFormat
from openai_dify_proxy.translate.dify.audio_form import encode_audio_form
from openai_dify_proxy.translate.openai.speech import MEDIA_TYPES, SpokenText, app_voice
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.booking import book
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.client import Client, ClientDisconnected
from openai_dify_proxy.turns.dify_stream import TurnLimits
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.wire.dify import AUDIO_TEXT, SpeechCall
from openai_dify_proxy.wire.reading import UNREADABLE

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""The largest answer of ``POST /audio-to-text`` that is read."""


class AudioCall(Struct, frozen=True):
    """Who makes a call, with which app. ``client`` aborts it by disconnecting; ``wait`` is its wait for a slot."""

    caller: Caller
    app: App
    end_user: str | None
    client: Client
    wait: TurnWait


class Speech(Struct, frozen=True):
    """Spoken audio, while it arrives. ``attention`` is that of its ``AudioAnswer``."""

    media_type: str
    read: ReadPart
    attention: asyncio.Event


class AudioService:
    """Transcribes and speaks with Dify apps. Its calls count against the slots of their Dify."""

    def __init__(self, settings: Settings, turns: Turns, dify: DifyClient) -> None:
        self.voices = settings.audio_voices
        self.converter = Converter(wait=settings.queue_timeout, silence=settings.silence_timeout)
        self._turns = turns
        self._dify = dify
        self._limits = TurnLimits(settings.silence_timeout, settings.turn_timeout)

    async def transcribe(self, call: AudioCall, audio: bytes, found: AudioFormat) -> str:
        """Return the text of a recording in the format ``found``. Raises ProxyError and ClientDisconnected."""
        dify = call.app.dify
        boundary = token_hex(16)

        async def send(user: str) -> Exchange:
            form = encode_audio_form(audio, found, user, boundary)
            return await self._dify.send_form(dify, "/audio-to-text", form, boundary)

        async with self._answer(call, send) as answer:
            body = await answer.read_all(MAX_TEXT_BYTES)
        try:
            return AUDIO_TEXT.decode(body).text or ""
        except UNREADABLE as exc:
            raise UpstreamGarbled("Dify's transcription cannot be read.", started=True, log=str(exc)) from exc

    @asynccontextmanager
    async def speech(self, call: AudioCall, spoken: SpokenText) -> AsyncIterator[Speech]:
        """Yield the spoken text; it arrives within the block. Raises ProxyError and ClientDisconnected."""
        dify = call.app.dify
        voice = app_voice(self.voices, spoken.voice)

        async def send(user: str) -> Exchange:
            body = json.encode(SpeechCall(spoken.text, user, voice))
            return await self._dify.generate(dify, "/text-to-audio", body)

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.converter.permit(spoken.response_format))
            answer = await stack.enter_async_context(self._answer(call, send))
            found, media_type = await answer.detect()
            if spoken.response_format == "mp3":
                yield Speech(media_type, answer.read, answer.attention)
                return
            converted = self.converter.convert(answer.read, found, spoken.response_format)
            read = await stack.enter_async_context(converted)
            yield Speech(MEDIA_TYPES[spoken.response_format], read, answer.attention)

    @asynccontextmanager
    async def _answer(self, call: AudioCall, send: Callable[[str], Awaitable[Exchange]]) -> AsyncIterator[AudioAnswer]:
        """Wait for a slot, send the request for Dify's ``user``, and yield its answer once its head is good.

        Book the call at its end.
        """
        url, admission = call.app.dify.url, self._turns.admission
        record = call.client.record
        record.caller, record.app, record.end_user = call.caller.id, call.app.name, call.end_user
        slot_of_turn = admission.slot(url, call.caller, call.client, call.wait, end_user=call.end_user, as_turn=True)
        async with slot_of_turn as slot:
            record.queued = call.wait.limit - call.wait.left
            user = await self._turns.user(call.app, call.caller, call.end_user)
            if call.client.disconnected:
                raise ClientDisconnected
            exchange = await send(user)
            slot.hold_until_end(exchange)
            outcome, started = "turn_failed", False
            try:
                answer = AudioAnswer(exchange, call.app.dify, self._limits, call.client)
                await answer.check()
                started = True
                yield answer
                outcome = "ok"
            except ClientDisconnected:
                outcome = "client_gone"
                raise
            finally:
                if not exchange.ended:
                    exchange.close()
                work = Work(call.app.name, outcome, started=started)
                if (booking := book(self._turns.ledger, call.caller, work)) is not None:
                    await booking
