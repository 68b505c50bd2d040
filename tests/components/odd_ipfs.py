"""IPFS nodes and pinning services with scripted answers: each answer is a function that writes bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.api.servers import serving
from tests.limits import PATIENCE

Answer = Callable[["Upload", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upload:
    """An upload as received."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def file(self) -> tuple[str, str, bytes]:
        """Return the field name, file name and bytes of the one part that is a file."""
        for part in self._parts():
            match = re.search(rb'name="([^"]*)"; filename="([^"]*)"', part)
            if match is not None:
                return match[1].decode(), match[2].decode(), part.partition(b"\r\n\r\n")[2]
        raise AssertionError("no file was uploaded")

    @property
    def form(self) -> dict[str, str]:
        fields = {}
        for part in self._parts():
            head, _, content = part.partition(b"\r\n\r\n")
            match = re.search(rb'name="([^"]*)"$', head)
            if match is not None:
                fields[match[1].decode()] = content.decode()
        return fields

    def _parts(self) -> list[bytes]:
        boundary = self.headers["content-type"].partition("boundary=")[2].encode()
        assert self.body.endswith(b"--" + boundary + b"--\r\n")
        return [part.removesuffix(b"\r\n") for part in self.body.split(b"--" + boundary)[1:-1]]


@dataclass
class OddIpfs:
    """A server that sends ``answers`` in order and repeats the last one."""

    answers: list[Answer]
    uploads: list[Upload] = field(default_factory=list)
    url: str = ""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_for_uploads(self, count: int) -> None:
        """Wait until ``count`` uploads have arrived in total."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.uploads) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request, *lines = head.decode("latin-1").splitlines()
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.uploads.append(Upload(request.split(" ")[1], headers, body))
                async with self._news:
                    self._news.notify_all()
                answer = self.answers[min(len(self.uploads), len(self.answers)) - 1]
                await answer(self.uploads[-1], writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client disconnected
        finally:
            writer.close()


@asynccontextmanager
async def odd_ipfs(*answers: Answer) -> AsyncIterator[OddIpfs]:
    odd = OddIpfs(list(answers))
    async with serving(odd.serve, limit=2**20) as port:
        odd.url = f"http://127.0.0.1:{port}"
        yield odd


def answer(body: str, status: str = "200 OK", *headers: str) -> Answer:
    async def write(_upload: Upload, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", *headers, "", body]
        writer.write("\r\n".join(lines).encode())

    return write


def chunked(body: str, *trailers: str, end: bool = True) -> Answer:
    """Answer as Kubo does; without ``end``, close the connection after ``body``."""

    async def write(_upload: Upload, writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 200 OK\r\nTrailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n\r\n"
        last = "".join(["0\r\n", *(f"{trailer}\r\n" for trailer in trailers), "\r\n"]) if end else ""
        writer.write(f"{head}{len(body.encode()):x}\r\n{body}\r\n{last}".encode())
        await writer.drain()
        if not end:
            writer.close()

    return write


async def silence(_upload: Upload, _writer: asyncio.StreamWriter) -> None:
    """Accept the upload and never answer."""
    await asyncio.Event().wait()


async def hang_up(_upload: Upload, writer: asyncio.StreamWriter) -> None:
    writer.close()


def added(cid: str) -> Answer:
    """Answer as Kubo does after a successful upload."""

    async def write(upload: Upload, writer: asyncio.StreamWriter) -> None:
        line = f'{{"Name":"{upload.file[1]}","Hash":"{cid}","Size":"{len(upload.file[2])}"}}\n'
        await chunked(line)(upload, writer)

    return write


class Relay:
    """Relay bytes to a node; a request stops after ``hold_after`` bytes until ``release`` is called."""

    def __init__(self, target: str, hold_after: int) -> None:
        self._port = int(target.rpartition(":")[2])
        self._hold_after = hold_after
        self._held = asyncio.Event()
        self._released = asyncio.Event()
        self.url = ""

    async def wait(self) -> None:
        """Wait until a request has reached ``hold_after`` bytes."""
        async with asyncio.timeout(PATIENCE):
            await self._held.wait()

    def release(self) -> None:
        self._released.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except ConnectionError:
            writer.close()
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass_on(behind_reader, writer))
            both.create_task(self._pass_on(reader, behind_writer, self._hold_after))

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hold_after: int | None = None
    ) -> None:
        passed = 0
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
                passed += len(data)
                if hold_after is not None and passed >= hold_after and not self._released.is_set():
                    self._held.set()
                    await self._released.wait()
        except ConnectionError:
            pass  # one side disconnected: close the other as well
        finally:
            writer.close()


@asynccontextmanager
async def relay(target: str, *, hold_after: int) -> AsyncIterator[Relay]:
    between = Relay(target, hold_after)
    async with serving(between.serve) as port:
        between.url = f"http://127.0.0.1:{port}"
        yield between
