"""Detect the formats of audio files by their first bytes."""

from __future__ import annotations

import pytest

from openai_dify_proxy.translate.audio.formats import FORMATS, HEAD_BYTES, detect_audio

# First bytes as in the specification of each format, or as encoders write them.
FILES = {
    "MP3 with a tag": (b"ID3\x04\0\0\0\0\x0f\x76", "mp3"),
    "MPEG 1 layer III, 128 kbit/s, 44.1 kHz": (b"\xff\xfb\x90\x64\0\x0f", "mp3"),
    "MPEG 2 layer III, 16 kbit/s, 16 kHz": (b"\xff\xf3\x28\xc4\0\x0e", "mp3"),
    "MPEG 2.5 layer III": (b"\xff\xe3\x18\xc4", "mp3"),
    "MPEG 1 layer II with a checksum": (b"\xff\xfc\x84\0", "mp3"),
    "WAV": (b"RIFF\x24\x08\0\0WAVEfmt ", "wav"),
    "WAV above 4 GB": (b"RF64\xff\xff\xff\xffWAVEds64", "wav"),
    "M4A": (b"\0\0\0\x20ftypM4A \0\0\0\0", "m4a"),
    "MP4": (b"\0\0\0\x18ftypmp42\0\0\0\0", "m4a"),
    "AMR": (b"#!AMR\n<", "amr"),
    "AMR wide band": (b"#!AMR-WB\n", "amr"),
    "AAC in ADTS, MPEG 4": (b"\xff\xf1\x50\x80\x2e\x7f\xfc", "aac"),
    "AAC in ADTS, MPEG 2": (b"\xff\xf9\x50\x80\x2e\x7f\xfc", "aac"),
    "FLAC": (b"fLaC\0\0\0\x22", "flac"),
    "Opus in Ogg": (b"OggS\0\x02\0\0\0\0\0\0\0\0", "ogg"),
    "WebM": (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01", "webm"),
    "MPEG program stream": (b"\0\0\x01\xba\x44\0\x04\0", "mpeg"),
    "MPEG video": (b"\0\0\x01\xb3\x14\0\xf0", "mpeg"),
}


@pytest.mark.parametrize(("data", "extension"), FILES.values(), ids=FILES)
def test_the_format_is_detected(data: bytes, extension: str) -> None:
    found = detect_audio(data)
    assert found is not None
    assert found.extension == extension
    assert found in FORMATS
    assert detect_audio(data.ljust(HEAD_BYTES, b"\0")) == found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ID",
        b"\xff",
        b"\xff\xfb\x90",
        b"hello, world, how are you",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"%PDF-1.7",
        b'{"text": "hi"}',
        b"<!doctype html>",
        b"\xff\xeb\x90\x64",  # the reserved version of MPEG audio
        b"\xff\xe1\x90\x64",  # the reserved layer
        b"\xff\xfb\xf0\x64",  # the forbidden bit rate
        b"\xff\xfb\x00\x64",  # a free bit rate
        b"\xff\xfb\x9c\x64",  # the reserved sample rate
    ],
)
def test_other_bytes_have_no_format(data: bytes) -> None:
    assert detect_audio(data) is None


def test_each_label_is_one_that_all_versions_of_dify_accept() -> None:
    """Dify 1.11 accepts these five, and 1.16 the last one of recordings too: ``audio/x-m4a``."""
    accepted = {f"audio/{name}" for name in ("mp3", "m4a", "wav", "amr", "mpga")}
    assert {found.dify_type for found in FORMATS} <= accepted
