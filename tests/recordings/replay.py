"""Replay recorded bytes as a Dify server, behind the real proxy and the official client.

The key of a request names the recording. The first segment of its path names how the bytes are split: ``whole`` sends
one write, ``bytes`` one byte at a time, ``pieces`` splits at reproducible random positions, also inside the framing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar, cast

from openai import AsyncOpenAI

from openai_dify_proxy.settings import Settings
from tests.api.servers import ProxyServer, app_settings, http_answer, read_request, serving
from tests.pictures.samples import encode, image
from tests.recordings.archive import GENERATING, Json, Recording

Manner = Literal["whole", "bytes", "pieces"]
MANNERS: tuple[Manner, ...] = ("whole", "bytes", "pieces")

PIECE = 160
"""The largest piece, in bytes."""


@dataclass
class ReplayDify:
    """A Dify that replays recordings; ``requests`` collects the proxy's requests by label.

    ``descriptions`` are recorded answers to the proxy's own requests, such as ``/info`` and ``/parameters``; without
    them, the app is described with the recording's mode and inputs.
    """

    by_key: dict[str, Recording]
    descriptions: Mapping[str, Recording]
    requests: dict[str, tuple[str, Json]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    """The paths and queries of the files that were requested."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader, 0)) is not None:
                if "authorization" not in request.headers:  # a file: Dify's signed links need no key
                    self.files.append(request.path)
                    writer.write(http_answer(200, PICTURE, "application/octet-stream"))
                    await writer.drain()
                    continue
                recording = self.by_key[request.headers["authorization"].removeprefix("Bearer ")]
                _, manner, path = request.path.split("/", 2)
                path = path.removeprefix("v1")
                if path in GENERATING:
                    self.requests[recording.label] = path, request.body
                    for part in wire(recording, cast(Manner, manner)):
                        writer.write(part)
                        await writer.drain()
                        if manner != "bytes":  # with "bytes", yielding would delay the end of the turn too much
                            await asyncio.sleep(0)  # let the proxy's thread read
                else:
                    writer.write(self._describe(recording, path.partition("?")[0]))
                    await writer.drain()
        except ConnectionError:
            pass  # the proxy closes the connection when it abandons a stream
        finally:
            writer.close()

    def _describe(self, recording: Recording, path: str) -> bytes:
        if path in self.descriptions:
            return b"".join(self.descriptions[path].response)
        description: Json = {"result": "success"}
        if path == "/info":
            description = {"name": recording.name, "mode": recording.mode}
        elif path == "/parameters":
            form = form_for(recording.request_json.get("inputs") or {})
            description = {"user_input_form": form, "file_upload": {"enabled": True}}
        body = json.dumps(description).encode()
        version = recording.headers.get("x-version", "")
        return f"HTTP/1.1 200 OK\r\nX-Version: {version}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def form_for(inputs: Json) -> list[Json]:
    """Return a form with fields for these inputs."""
    kinds = {str: "paragraph", int: "number", dict: "json_object", list: "file-list"}
    return [
        {kinds.get(type(value), "paragraph"): {"variable": name, "label": name, "required": False}}
        for name, value in inputs.items()
    ]


def wire(recording: Recording, manner: Manner) -> Iterator[bytes]:
    """Yield the answer as socket writes, with its chunked framing restored."""
    head, body = recording.response
    if "transfer-encoding" not in recording.headers:
        yield head + body
    elif manner == "whole":
        yield head + chunk(body) + LAST_CHUNK
    elif manner == "bytes":
        yield head
        for index in range(len(body)):
            yield chunk(body[index : index + 1])
        yield LAST_CHUNK
    else:
        random = Random(recording.label)
        framed = b"".join(chunk(piece) for piece in pieces(body, random))
        yield from pieces(head + framed + LAST_CHUNK, random)


def chunk(data: bytes) -> bytes:
    """Frame one chunk of a chunked body; an empty chunk ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = chunk(b"")


def pieces(data: bytes, random: Random) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = random.randint(1, PIECE)
        yield data[at : at + size]
        at += size


PICTURE = encode(image("RGB", (4, 4)), "PNG")
"""The content of every file."""

_LINK = re.compile(
    r"(?:https?://[^/\s\"()]+)?/files/tools/([0-9a-f-]{36})[^\s\"()]*|http://[^/\s]+/artifacts/([\w-]+)\.\w+"
)


def named_files(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the links to files, Dify's as well as the proxy's, by names in the order of each answer."""
    return {label: json.loads(_with_names(json.dumps(answer))) for label, answer in answers.items()}


def _with_names(text: str) -> str:
    names: dict[str, str] = {}
    return _LINK.sub(lambda link: names.setdefault(link[1] or link[2], f"file-{len(names)}"), text)


Read = TypeVar("Read")

AT_ONCE = 16


@dataclass(frozen=True)
class Replay:
    """A proxy in front of a ReplayDify at ``origin``; each recording's label is the name of its model."""

    proxy: ProxyServer
    dify: ReplayDify
    origin: str

    async def read(
        self, read: Callable[[AsyncOpenAI, Recording], Awaitable[Read]], recordings: Iterable[Recording]
    ) -> dict[str, Read]:
        """Apply ``read`` to the recordings, some of them concurrently; return the results by label."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def read_one(recording: Recording) -> tuple[str, Read]:
            async with slots:
                return recording.label, await read(client, recording)

        async with self.proxy.client(max_retries=0) as client:
            return dict(await asyncio.gather(*map(read_one, recordings)))

    async def read_json(
        self, read: Callable[[AsyncOpenAI, Recording], Awaitable[Any]], recordings: Iterable[Recording]
    ) -> dict[str, Any]:
        """Do the same for JSON results, with a fixed origin for this Dify's, and names for links to files."""
        answers = json.dumps(await self.read(read, recordings))
        portable: dict[str, Any] = json.loads(answers.replace(self.origin, "http://dify.test"))
        return named_files(portable)


@asynccontextmanager
async def replaying(
    recordings: Iterable[Recording],
    manner: Manner = "whole",
    descriptions: Mapping[str, Recording] | None = None,
    **options: Any,
) -> AsyncIterator[Replay]:
    """Start a replay; ``options`` are app settings. Time limits are long, so that only the bytes decide the outcome."""
    dify = ReplayDify({recording.key: recording for recording in recordings}, descriptions or {})
    async with serving(dify.serve) as port:
        origin = f"http://127.0.0.1:{port}"
        url = f"{origin}/{manner}/v1"
        apps = {
            recording.label: app_settings(recording.label, recording.key, url, **options)
            for recording in dify.by_key.values()
        }
        proxy = ProxyServer(
            Settings(dify_api_url=url, apps=apps, first_event_grace=60, heartbeat="off", dify_max_concurrent="off")
        )
        proxy.__enter__()
        try:
            yield Replay(proxy, dify, origin)
        finally:
            await asyncio.to_thread(proxy.__exit__, None, None, None)  # this loop must serve Dify meanwhile
