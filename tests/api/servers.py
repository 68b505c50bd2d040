"""The proxy on a real socket, and a Dify whose responses a test writes byte by byte."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import uvicorn
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from openai_dify_proxy.app import create_app
from openai_dify_proxy.cli.server import server_config
from openai_dify_proxy.server import FrontDoor, http_limits
from openai_dify_proxy.settings import AppSettings, SecretStr, Settings, decode_settings, encode_settings
from openai_dify_proxy.turns.claim_timing import ClaimTiming
from openai_dify_proxy_demo import DEMO_APPS, DIALECTS, SPECIAL_APPS
from tests.limits import PATIENCE
from tests.movable_time import MovableLoop

UNSPACED = ClaimTiming(turn_spacing=0)
"""No pause between turns. For demos with the clock ``counted_seconds``, which do not confuse such turns."""


def counted_seconds() -> Callable[[], float]:
    """Return a clock for the demo that gives each turn its own second."""
    return itertools.count(int(time.time())).__next__


@dataclass
class Clock:
    """A clock that a test can move: it is ``ahead`` seconds ahead of the machine's clock."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def demo_apps(url: str) -> dict[str, AppSettings]:
    """Return the settings of all demo apps, as ``name`` and, for each dialect, as ``name@version``."""
    names = [
        f"{app.name}{version}"
        for app in (*DEMO_APPS, *SPECIAL_APPS)
        for version in ("", *(f"@{dialect}" for dialect in DIALECTS))
    ]
    return {name: app_settings(name, f"app-{name}", url) for name in names}


def app_settings(name: str, key: str, url: str, **more: Any) -> AppSettings:
    return AppSettings(name=name, api_key=SecretStr(key), api_url=url, **more)


class ProxyServer:
    """A context manager that runs the proxy on an ephemeral port, in its own thread and event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        timing: ClaimTiming = UNSPACED,
        clock: Callable[[], float] = time.time,
        loop: MovableLoop | None = None,
        **options: Any,
    ) -> None:
        """``loop`` runs the proxy instead of a new one. ``options`` are further arguments of ``create_app``.

        The proxy has the settings as a worker gets them, so secrets may be plain text here.
        """
        self.settings = settings = decode_settings(encode_settings(settings))
        app = create_app(settings, timing=timing, clock=clock, **({"state_timeout": PATIENCE} | options))
        self._server = ListeningServer(server_config(app, http_limits(settings), grace=settings.shutdown_grace))
        self._server.config.port = 0
        if loop is not None:
            self._server.use(loop)
        self._thread = threading.Thread(target=self._server.run, name="proxy", daemon=True)
        self.port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    def client(self, api_key: str = "unused", **more: Any) -> AsyncOpenAI:
        """Return the official client, with its default of two retries.

        It loads no certificates: that would take most of a test's time.
        """
        http = DefaultAsyncHttpxClient(verify=False, timeout=PATIENCE)
        return AsyncOpenAI(base_url=self.url, api_key=api_key, http_client=http, **more)

    def begin_stop(self) -> None:
        """Let the server stop as it does on SIGTERM."""
        self._server.should_exit = True

    @property
    def served_directly(self) -> int:
        """How many requests the hot path is serving, of those that the server finishes before it stops."""
        return sum(not isinstance(task, asyncio.Task) for task in set(self._server.server_state.tasks))

    @property
    def buffered_bytes(self) -> int:
        """The bytes that the proxy holds for clients that have not read them."""
        return cast(FrontDoor, self._server.config.http).write_buffers.total

    def limit_send_buffers(self, size: int) -> None:
        """Let the kernel buffer about ``size`` bytes for each client that connects from now on."""
        self._server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._server.listening.wait(PATIENCE), "the proxy did not start"
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the proxy did not stop"


class ListeningServer(uvicorn.Server):
    """Sets ``listening`` once it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    def use(self, loop: MovableLoop) -> None:
        """Run in ``loop``, which the server closes at the end."""
        self.config.loop = cast(str, lambda: loop)  # uvicorn takes the import path of a factory, or the factory itself

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@dataclass
class RawRequest:
    """A received request. ``body`` is its decoded JSON, the bytes of a form, or None."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int
    """The number of its connection, counted from 1."""


@dataclass
class RawDify:
    """A Dify that answers turns with bytes written by the test. It answers other requests correctly."""

    mode: str
    answer: Callable[[RawRequest, asyncio.StreamWriter], Awaitable[None]]
    url: str = ""
    requests: list[RawRequest] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    describing: asyncio.Event | None = None
    """If set, the response to ``/info`` waits for it."""
    connections: int = 0

    @property
    def turns(self) -> list[RawRequest]:
        return [request for request in self.requests if request.path.endswith(TURN_PATHS)]

    @property
    def stops(self) -> list[RawRequest]:
        return [request for request in self.requests if request.path.endswith("/stop")]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while (request := await read_request(reader, number)) is not None:
                self.requests.append(request)
                if request.path.endswith(TURN_PATHS):
                    await self.answer(request, writer)
                    break
                if request.path.endswith("/stop"):
                    self.stopped.set()
                if request.path.endswith("/info") and self.describing is not None:
                    await self.describing.wait()
                writer.write(http_answer(200, self._reply(request.path)))
                await writer.drain()
        except ConnectionError:
            pass  # the proxy disconnected, as some tests expect
        finally:
            writer.close()

    def _reply(self, path: str) -> bytes:
        if path.endswith("/info"):
            return json.dumps({"name": "raw", "description": "", "tags": [], "mode": self.mode}).encode()
        if path.endswith("/parameters"):
            return b'{"user_input_form": []}'
        return b'{"result": "success"}'


TURN_PATHS = ("/chat-messages", "/completion-messages", "/workflows/run", "/audio-to-text", "/text-to-audio")


async def read_request(reader: asyncio.StreamReader, connection: int) -> RawRequest | None:
    """Read the next request. Return None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    if headers.get("content-type", "").startswith("multipart/form-data"):
        return RawRequest(method, path, headers, body, connection)
    return RawRequest(method, path, headers, json.loads(body) if body else None, connection)


def http_answer(status: int, body: bytes, kind: str = "application/json", *more: str) -> bytes:
    """Return the bytes of an HTTP response."""
    head = [f"HTTP/1.1 {status} Status", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

TASK = "11111111-2222-4333-8444-555555555555"


def chunk(*frames: bytes) -> bytes:
    """Return frames as one chunk of a chunked body."""
    data = b"".join(frames)
    return b"%x\r\n%s\r\n" % (len(data), data)


def frame(event: str, **fields: Any) -> bytes:
    """Return an SSE frame of Dify, with its ids."""
    return b"data: " + json.dumps({"event": event, "task_id": TASK, "message_id": TASK, **fields}).encode() + b"\n\n"


def message_frame(text: str) -> bytes:
    return frame("message", answer=text)


END = frame("message_end", metadata={})


def scripted(pieces: Iterable[bytes]) -> Callable[[RawRequest, asyncio.StreamWriter], Awaitable[None]]:
    """Return a handler that writes fixed pieces and then closes the connection."""

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return answer


@asynccontextmanager
async def raw_dify(
    answer: Callable[[RawRequest, asyncio.StreamWriter], Awaitable[None]],
    mode: str = "chat",
    at: socket.socket | None = None,
) -> AsyncIterator[RawDify]:
    """Run a RawDify in the test's event loop, on a new port or on the listening socket ``at``."""
    dify = RawDify(mode, answer)
    async with serving(dify.serve, at=at) as port:
        dify.url = f"http://127.0.0.1:{port}/v1"
        yield dify


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    host: str = "127.0.0.1",
    at: socket.socket | None = None,
    limit: int = 2**16,
) -> AsyncIterator[int]:
    """Run a TCP server that closes all its connections at the end. ``limit`` is the buffer limit of its readers."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []
    errors: list[BaseException] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        except Exception as error:  # noqa: BLE001 - raised in the test, at the end
            errors.append(error)
        finally:
            tasks.discard(task)

    listener = at.dup() if at is not None else socket.create_server((host, 0), family=family_of(host))
    server = await asyncio.start_server(accept, sock=listener, backlog=2048, limit=limit)
    try:
        yield listener.getsockname()[1]
    finally:
        # An accepted connection reaches accept() only a few iterations of the loop later, and would never be closed if
        # the server were closed by then. So stop accepting, wait for these iterations, and only then close the server.
        asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(10):
            await asyncio.sleep(0)
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    if errors:
        raise errors[0]


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
