"""Converts spoken audio with ffmpeg, if it is installed.

ffmpeg reads the audio from its standard input and writes to its standard output, so the audio streams and a slow client
pauses all of it. What Dify sends is not trusted: ffmpeg is told the format that was detected, so that it opens no
playlist, may use no protocol but pipes, gets none of the server's environment, and has limits for time and memory. The
number of processes at once is limited too.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from openai_dify_proxy.audio.answer import ReadPart
from openai_dify_proxy.errors import InvalidRequest, ServerBusy, UpstreamFailed, UpstreamTimeout
from openai_dify_proxy.translate.audio.formats import AudioFormat

MAX_CONVERSIONS = 8
"""Conversions of one process at the same time; each takes about 40 MB."""

CPU_SECONDS = 120
"""The processor time of one conversion; an hour of speech takes less."""

MAX_BLOCK_BYTES = 64 * 1024 * 1024
"""The largest block of memory that ffmpeg may allocate."""

READ_BYTES = 32 * 1024

_NEEDED_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")

_DEMUXERS = {"m4a": "mov", "webm": "matroska", "mpeg": "mpeg"}
"""ffmpeg's names of formats that differ from the file name extension."""

ENCODERS: dict[str, tuple[str, ...]] = {
    "opus": ("-c:a", "libopus", "-b:a", "64k", "-f", "ogg"),
    "aac": ("-c:a", "aac", "-b:a", "128k", "-f", "adts"),
    "flac": ("-c:a", "flac", "-sample_fmt", "s16", "-f", "flac"),
    "wav": ("-c:a", "pcm_s16le", "-f", "wav"),
    "pcm": ("-c:a", "pcm_s16le", "-ar", "24000", "-ac", "1", "-f", "s16le"),
}
"""ffmpeg's options for each ``response_format``; ``pcm`` is 24 kHz mono, as in OpenAI's API."""


class Converter:
    """Converts audio with the ``ffmpeg`` on the PATH. ``wait`` is how long a request waits for its turn, in seconds."""

    def __init__(self, *, wait: float, silence: float) -> None:
        self._program = shutil.which("ffmpeg")
        self._wait = wait
        self._silence = silence
        self._permits = asyncio.Semaphore(MAX_CONVERSIONS)

    def check(self, response_format: str) -> None:
        """Raise InvalidRequest if the format needs ffmpeg and there is none."""
        if response_format != "mp3" and self._program is None:
            raise InvalidRequest(
                f"response_format '{response_format}' needs ffmpeg, which this server does not have. Use mp3, or ask "
                "the operator to install ffmpeg.",
                param="response_format",
                code="unsupported_parameter",
            )

    @asynccontextmanager
    async def permit(self, response_format: str) -> AsyncIterator[None]:
        """Wait for the permission to convert within the block, if the format needs it. Raises ServerBusy."""
        if response_format == "mp3":
            yield
            return
        try:
            async with asyncio.timeout(self._wait):
                await self._permits.acquire()
        except TimeoutError:
            raise ServerBusy("Too much audio is being converted. Try again in a moment.", retry_after=5) from None
        try:
            yield
        finally:
            self._permits.release()

    @asynccontextmanager
    async def convert(self, read: ReadPart, found: AudioFormat | None, response_format: str) -> AsyncIterator[ReadPart]:
        """Yield a function that reads the audio of ``read``, in the format ``found``, as ``response_format``.

        It raises the errors of ``read``, UpstreamFailed and UpstreamTimeout. ffmpeg ends with the block.
        """
        if found is None or self._program is None:
            raise UpstreamFailed("Dify's audio has an unknown format and cannot be converted. Use mp3.", started=True)
        demuxer = _DEMUXERS.get(found.extension, found.extension)
        arguments = _arguments(demuxer, response_format)
        process = await asyncio.create_subprocess_exec(
            self._program, *arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_environment()
        )
        feeder = asyncio.get_running_loop().create_task(_feed(process, read))
        try:
            yield partial(self._read, process, feeder)
        finally:
            await _end(process, feeder)

    async def _read(self, process: Process, feeder: asyncio.Task[None]) -> bytes:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._silence):
                data = await process.stdout.read(READ_BYTES)
        except TimeoutError:
            raise UpstreamTimeout("The conversion of the audio takes too long.", started=True) from None
        if not data:
            await feeder
            if await process.wait():
                raise UpstreamFailed("Dify's audio cannot be converted. Use mp3.", started=True)
        return data


def _arguments(demuxer: str, response_format: str) -> tuple[str, ...]:
    return (
        *("-hide_banner", "-loglevel", "quiet", "-nostdin", "-threads", "1"),
        *("-timelimit", str(CPU_SECONDS), "-max_alloc", str(MAX_BLOCK_BYTES)),
        *("-protocol_whitelist", "pipe", "-f", demuxer, "-i", "pipe:0"),
        *(
            "-map",
            "0:a:0",
            "-map_metadata",
            "-1",
            "-fflags",
            "+bitexact",
            "-flush_packets",
            "1",
            *ENCODERS[response_format],
            "pipe:1",
        ),
    )


def _environment() -> dict[str, str]:
    """Return the variables that a program may need to start. The server's own hold keys."""
    return {name: os.environ[name] for name in _NEEDED_VARIABLES if name in os.environ}


async def _feed(process: Process, read: ReadPart) -> None:
    """Write the audio to ffmpeg. An end of ffmpeg before that of the audio shows in its exit code."""
    stream = process.stdin
    assert stream is not None
    try:
        while part := await read():
            stream.write(part)
            await stream.drain()
    except ConnectionError:
        pass
    finally:
        stream.close()


async def _end(process: Process, feeder: asyncio.Task[None]) -> None:
    """End ffmpeg, in whatever state it is."""
    feeder.cancel()
    await asyncio.wait([feeder])
    if not feeder.cancelled():
        feeder.exception()  # it was raised already, or the consumer has another reason to stop
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
