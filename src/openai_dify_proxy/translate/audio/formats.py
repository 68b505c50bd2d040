"""Detects the format of audio files by their first bytes."""

from __future__ import annotations

from msgspec import Struct

HEAD_BYTES = 16
"""The bytes of a file that ``detect_audio`` needs."""


class AudioFormat(Struct, frozen=True):
    """A format of audio files. ``extension`` is its usual file name extension, without a dot.

    ``dify_type`` is the MIME type under which Dify's speech-to-text accepts such a file. Dify checks only this label
    (``audio/mp3``, ``m4a``, ``wav``, ``amr`` or ``mpga`` in all versions) and passes the bytes on to the model, so
    formats without a label of their own have that of MP3. Source: recordings of Dify 1.16, and its source since 1.0.
    """

    extension: str
    media_type: str
    dify_type: str = "audio/mp3"


MP3 = AudioFormat("mp3", "audio/mpeg")
WAV = AudioFormat("wav", "audio/wav", "audio/wav")
M4A = AudioFormat("m4a", "audio/mp4", "audio/m4a")
AMR = AudioFormat("amr", "audio/amr", "audio/amr")
AAC = AudioFormat("aac", "audio/aac")
FLAC = AudioFormat("flac", "audio/flac")
OGG = AudioFormat("ogg", "audio/ogg")
WEBM = AudioFormat("webm", "audio/webm")
MPEG = AudioFormat("mpeg", "video/mpeg")

FORMATS = (MP3, WAV, M4A, AMR, AAC, FLAC, OGG, WEBM, MPEG)

_SIGNATURES = (
    (b"ID3", MP3),
    (b"fLaC", FLAC),
    (b"OggS", OGG),
    (b"\x1aE\xdf\xa3", WEBM),
    (b"#!AMR", AMR),
    (b"\x00\x00\x01\xba", MPEG),
    (b"\x00\x00\x01\xb3", MPEG),
)


def detect_audio(data: bytes) -> AudioFormat | None:
    """Return the format of a file that begins with ``data``, or None if it is no known audio or video format."""
    for signature, found in _SIGNATURES:
        if data.startswith(signature):
            return found
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return WAV
    if data[4:8] == b"ftyp":
        return M4A
    return _detect_frame(data)


def _detect_frame(data: bytes) -> AudioFormat | None:
    """Return the format of a stream of frames without a file header: MPEG audio, or AAC in ADTS."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    if data[1] & 0xF6 == 0xF0:  # twelve sync bits, and the layer that MPEG audio reserves
        return AAC
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    bitrate, rate = data[2] >> 4, data[2] >> 2 & 3
    return None if version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3 else MP3
