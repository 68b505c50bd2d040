"""Audio files and forms for requests, and a decoder that is not the proxy's."""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
import wave
from array import array
from pathlib import Path

from tests.parts import ffmpeg


def wav(seconds: float = 0.2, rate: int = 16_000) -> bytes:
    """Return a WAV file with a tone, written by Python's own library."""
    samples = array("h", (round(9000 * math.sin(index / 6)) for index in range(round(seconds * rate))))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return file.getvalue()


def heard(audio: bytes, kind: str) -> str:
    """Return the demo's transcription of a file that it received as ``kind``."""
    return f"heard {kind}, {len(audio)} bytes, sha {hashlib.sha256(audio).hexdigest()[:12]}"


async def encoded(sound: bytes, *options: str) -> bytes:
    """Return the WAV file ``sound`` as ffmpeg encodes it with ``options``."""
    return await _run_ffmpeg(sound, "-i", "pipe:0", *options, "pipe:1")


async def decoded(audio: bytes, *options: str) -> array[int]:
    """Return the samples of an audio file, 24 kHz mono, as ffmpeg decodes it. ``options`` describe bare samples."""
    samples = await _run_ffmpeg(audio, *options, "-i", "pipe:0", "-f", "s16le", "-ar", "24000", "-ac", "1", "pipe:1")
    return array("h", samples)


def loudness(samples: array[int]) -> float:
    return math.sqrt(sum(sample * sample for sample in samples) / len(samples))


async def _run_ffmpeg(data: bytes, *arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        ffmpeg(),
        *("-hide_banner", "-loglevel", "error", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(data)
    assert process.returncode == 0, errors.decode()
    return output


def link_ffmpeg(directory: Path) -> Path:
    """Create a folder for the PATH that holds an ``ffmpeg``, and return it."""
    folder = directory / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "ffmpeg").symlink_to(ffmpeg())
    return folder
