"""Chat completions for the command ``chat``: one request at a time, to a proxy that runs or is started here."""

from __future__ import annotations

import base64
import mimetypes
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from uvicorn.server import Server

from openai_dify_proxy.app import create_app
from openai_dify_proxy.cli.listening import base_url, listen
from openai_dify_proxy.cli.server import server_config
from openai_dify_proxy.server import http_limits
from openai_dify_proxy.settings import SecretStr, Settings
from openai_dify_proxy.telemetry import configure_logging
from openai_dify_proxy.wire.openai.chat import ErrorEnvelope

LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 310.0
"""How long the proxy may send nothing. It sends heartbeats, unless they are off, and ends silent turns itself."""

MAX_FRAME = 64 * 1024 * 1024

Message = dict[str, Any]


class ChatFailed(Exception):
    """The proxy answered with an error, or did not answer. The text is for the user."""


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(Struct):
    delta: _Delta


class _Chunk(Struct):
    choices: list[_Choice] = []


class Piece(Struct, frozen=True):
    """A piece of an answer: text, or reasoning."""

    text: str
    reasoning: bool = False


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_error = msgspec.json.Decoder(ErrorEnvelope).decode


class ChatClient:
    """Talks to the model ``model`` of the proxy at ``url``, with its conversation so far."""

    def __init__(self, url: str, model: str | None, key: str | None) -> None:
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._messages: list[Message] = []

    def forget(self) -> None:
        """Start a new conversation."""
        self._messages.clear()

    async def ask(self, text: str, files: list[Path]) -> AsyncIterator[Piece]:
        """Yield the answer to a question. Raises ChatFailed; the conversation is then as before."""
        question: Message = {"role": "user", "content": [_text_part(text), *map(_file_part, files)] if files else text}
        answer = ""
        try:
            async for piece in self._stream([*self._messages, question]):
                answer += "" if piece.reasoning else piece.text
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise ChatFailed(f"The proxy at {self._url} does not answer: {reason}.") from error
        self._messages += [question, {"role": "assistant", "content": answer}]

    async def _stream(self, messages: list[Message]) -> AsyncIterator[Piece]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        body = {"messages": messages, "stream": True, **({"model": self._model} if self._model else {})}
        async with (
            aiohttp.ClientSession(timeout=timeout, read_bufsize=MAX_FRAME) as session,
            session.post(self._url, json=body, headers=self._headers) as answer,
        ):
            if answer.status != 200:
                raise ChatFailed(_message_of(await answer.read()))
            async for line in answer.content:
                for piece in _pieces(line):
                    yield piece


def _pieces(line: bytes) -> Iterator[Piece]:
    data = line.removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return
    if data.startswith(b'{"error"'):
        raise ChatFailed(_message_of(data))
    for choice in _decode_chunk(data).choices:
        if choice.delta.reasoning_content:
            yield Piece(choice.delta.reasoning_content, reasoning=True)
        if choice.delta.content:
            yield Piece(choice.delta.content)


def _message_of(body: bytes) -> str:
    try:
        return _decode_error(body).error.message
    except msgspec.MsgspecError:
        return "The server answered with something that is not an answer of this proxy."


def _text_part(text: str) -> Message:
    return {"type": "text", "text": text}


def _file_part(path: Path) -> Message:
    """Return the part for a file. Raises ChatFailed."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise ChatFailed(f"{path} cannot be read: {error.strerror}.") from error
    url = f"data:{kind};base64,{data}"
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": path.name, "file_data": url}}


def is_serving(settings: Settings) -> bool:
    """Return whether something listens where the server of these settings would."""
    with socket.socket() as probe:
        probe.settimeout(CONNECT_SECONDS)
        return probe.connect_ex((LOOPBACK, settings.port)) == 0


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve the apps of ``settings`` in a thread, to this machine only and without stored state. Yield the URL."""
    private: dict[str, Any] = {"host": LOOPBACK, "api_keys": (), "personal_keys": (), "allow_anonymous": False}
    private["state_url"] = SecretStr("memory://")
    settings = replace(settings, **private)
    configure_logging("error")
    sockets = listen(LOOPBACK, 0)
    server = Server(server_config(create_app(settings), http_limits(settings), grace=1))
    thread = threading.Thread(target=server.run, args=(sockets,), name="proxy", daemon=True)
    thread.start()
    try:
        yield base_url(LOOPBACK, sockets)
    finally:
        server.should_exit = True
        thread.join()
