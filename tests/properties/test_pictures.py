"""For any bytes, only MalformedPicture is raised, and stripping is idempotent."""

from __future__ import annotations

import hashlib

from hypothesis import example, given
from hypothesis import strategies as st

from openai_dify_proxy.translate.pictures.formats import MalformedPicture, sniff, strip_text
from openai_dify_proxy.translate.pictures.ipfs_answers import NoCid, read_upload_answer
from openai_dify_proxy.translate.pictures.ipfs_cid import CHUNK_SIZE, compute_cid, normalize_cid
from tests.pictures.samples import SAMPLES, SECRET

BEGINNINGS = [
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"RIFF\x40\0\0\0WEBP",
    b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0",
    b"RIFF\x40\0\0\0WEBPANMF\x20\0\0\0",
    b"GIF89a",
    b"",
]


def strip_or_refuse(data: bytes) -> bytes | None:
    try:
        return strip_text(data)
    except MalformedPicture:
        return None


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=200))
def test_any_bytes_are_stripped_or_refused(beginning: bytes, rest: bytes) -> None:
    stripped = strip_or_refuse(beginning + rest)
    if stripped is not None:
        assert sniff(stripped) == sniff(beginning + rest)
        assert strip_text(stripped) == stripped


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_picture_with_other_bytes_in_it_is_stripped_or_refused(name: str, data: st.DataObject) -> None:
    picture = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))
    stripped = strip_or_refuse(bytes(picture))
    if stripped is not None:
        assert len(stripped) <= len(picture) + 1
        assert strip_text(stripped) == stripped


@given(st.sampled_from(sorted(SAMPLES)), st.binary(min_size=1, max_size=100))
def test_trailing_bytes_are_removed(name: str, behind: bytes) -> None:
    assert strip_text(SAMPLES[name] + behind) == strip_text(SAMPLES[name])
    assert SECRET.encode() not in strip_text(SAMPLES[name])


@given(st.binary(max_size=CHUNK_SIZE))
@example(bytes(CHUNK_SIZE))
def test_the_cid_of_one_chunk_is_its_sha256(data: bytes) -> None:
    cid = compute_cid(data)
    assert normalize_cid("f01551220" + hashlib.sha256(data).hexdigest()) == cid
    assert normalize_cid(cid) == cid


@given(st.integers(2, 5), st.integers(-1, 1))
def test_every_length_has_a_different_cid(chunks: int, more: int) -> None:
    data = bytes(chunks * CHUNK_SIZE + more)
    assert compute_cid(data) != compute_cid(data + b"\0")
    assert compute_cid(data).startswith("bafybei")


@given(st.text(max_size=80))
def test_any_text_is_a_cid_or_none(text: str) -> None:
    cid = normalize_cid(text)
    assert cid is None or normalize_cid(cid) == cid


@given(st.binary(max_size=300), st.text(max_size=10))
def test_any_answer_has_a_cid_or_none(body: bytes, name: str) -> None:
    try:
        cid = read_upload_answer(body, name)
    except NoCid:
        return
    assert normalize_cid(cid) == cid
