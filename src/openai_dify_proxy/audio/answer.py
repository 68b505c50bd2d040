"""Dify's answer to one audio call, with deadlines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from openai_dify_proxy.errors import ProxyError, StreamCut, UpstreamFailed, UpstreamTimeout
from openai_dify_proxy.translate.audio.formats import HEAD_BYTES, AudioFormat, detect_audio
from openai_dify_proxy.turns.client import Client, ClientDisconnected
from openai_dify_proxy.turns.dify_stream import ERROR_BODY_BYTES, ERROR_BODY_SECONDS, TurnLimits
from openai_dify_proxy.upstream.dify import DifyApp, missing_answer, rejection
from openai_dify_proxy.upstream.exchange import Exchange

ReadPart = Callable[[], Awaitable[bytes]]
"""Returns the next bytes as soon as there are any, and none at the end."""

_AUDIO_TYPE = re.compile(r"audio/[\w.+-]{1,60}", re.ASCII)


class AudioAnswer:
    """Reads the answer of ``exchange``. All methods raise ProxyError, and ClientDisconnected once ``client`` is gone.

    ``limits.silence`` limits each wait for bytes, ``limits.turn`` the whole answer. ``attention`` is set when the
    client disconnects; the writer of the client's response may use it for its own purposes too.
    """

    def __init__(self, exchange: Exchange, app: DifyApp, limits: TurnLimits, client: Client) -> None:
        self._exchange = exchange
        self._app = app
        self._limits = limits
        self._client = client
        self._head = b""
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + limits.turn
        self.attention = asyncio.Event()
        client.on_disconnect(self._on_disconnect)

    async def check(self) -> None:
        """Wait for the head of the answer, and raise the error that it reports."""
        exchange = self._exchange
        while exchange.status is None and not exchange.ended:
            await self._wait()
        if exchange.status is None:
            raise missing_answer(self._app, exchange)
        if not 200 <= exchange.status < 300:
            raise await self._rejection()

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body after ``check``. Raises UpstreamFailed if it has more than ``limit`` bytes."""
        parts, size = [], 0
        while part := await self.read():
            size += len(part)
            if size > limit:
                raise UpstreamFailed("Dify's answer is too large.", started=True)
            parts.append(part)
        return b"".join(parts)

    async def read(self) -> bytes:
        """Return the next bytes of the body, none at its end.

        Reading from Dify pauses while too much is unread.
        """
        exchange = self._exchange
        data, self._head = self._head, b""
        while not data:
            ended = exchange.ended
            data = exchange.take()
            if not data:
                if ended:
                    break
                await self._wait()
        if not data and exchange.broken:
            raise StreamCut("Dify's answer stopped before it was complete.", started=True)
        return data

    async def detect(self) -> tuple[AudioFormat | None, str]:
        """Return the format and the media type of a spoken answer, after ``check`` and before ``read``.

        The format is that of the bytes, or None if it is unknown; the media type is Dify's then. Raises UpstreamFailed
        if the answer is no audio.
        """
        head = b""
        while len(head) < HEAD_BYTES and (part := await self.read()):
            head += part
        self._head = head
        named = self._exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
        found = detect_audio(head)
        if not head or (found is None and not _AUDIO_TYPE.fullmatch(named)):
            raise UpstreamFailed(
                "Dify returned no audio. Check the text-to-speech model of the app in Dify.",
                started=True,
                log=f"Dify answered POST /text-to-audio with {len(head)} bytes of the type '{named[:100]}'.",
            )
        return found, named if found is None else found.media_type

    def _on_disconnect(self) -> None:
        self.attention.set()
        self._exchange.wake()

    async def _rejection(self) -> ProxyError:
        try:
            async with asyncio.timeout(ERROR_BODY_SECONDS):
                body = await self._exchange.read_all(ERROR_BODY_BYTES)
        except TimeoutError:
            body = b""
        return rejection(self._app, self._exchange, body)

    async def _wait(self) -> None:
        """Wait until something has arrived."""
        end = min(self._end, self._loop.time() + self._limits.silence)
        try:
            async with asyncio.timeout_at(end):
                await self._exchange.wait()
        except TimeoutError:
            raise UpstreamTimeout(_too_late(self._limits, whole=end == self._end), started=True) from None
        if self._client.disconnected:
            raise ClientDisconnected


def _too_late(limits: TurnLimits, *, whole: bool) -> str:
    if whole:
        return f"Dify did not finish the audio call within {limits.turn:g} s."
    return f"Dify sent nothing for {limits.silence:g} s."
