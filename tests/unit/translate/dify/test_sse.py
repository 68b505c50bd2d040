from __future__ import annotations

import pytest

from openai_dify_proxy.translate.dify.sse import FrameSplitter

LIMIT = 1000

# The bytes, their payloads and number of frames: as sent by Dify 1.11 to 1.16, the rest by the standard.
CASES: dict[str, tuple[bytes, list[bytes], int]] = {
    "Dify's own framing": (b'data: {"a":1}\n\ndata: {"b":2}\n\n', [b'{"a":1}', b'{"b":2}'], 2),
    "a bare ping has no data": (b"event: ping\n\n", [], 1),
    "pings between events": (b"event: ping\n\ndata: {}\n\nevent: ping\n\n", [b"{}"], 3),
    "a balancer that writes CRLF": (b"data: {}\r\n\r\nevent: ping\r\n\r\ndata: []\r\n\r\n", [b"{}", b"[]"], 3),
    "no space after the colon": (b"data:{}\n\n", [b"{}"], 1),
    "only one space is removed": (b"data:  {}\n\n", [b" {}"], 1),
    "several data lines are one payload": (b'data: {"a":\ndata: 1}\n\n', [b'{"a":\n1}'], 1),
    "other fields are ignored": (b"id: 7\nevent: message\nretry: 3\ndata: {}\n\n", [b"{}"], 1),
    "comments are ignored": (b": keep-alive\n\ndata: {}\n\n", [b"{}"], 2),
    "empty data": (b"data:\n\ndata: \n\n", [b"", b""], 2),
    "a frame after a needless empty line": (b"\ndata: {}\n\n", [b"{}"], 1),
    "Unicode line separators are not line ends": (
        "data: a\u2028b\u2029c\x85d\n\n".encode(),
        ["a\u2028b\u2029c\x85d".encode()],
        1,
    ),
    "control characters are not line ends": (b"data: a\x0bb\x0cc\x1cd\n\n", [b"a\x0bb\x0cc\x1cd"], 1),
    "an incomplete frame is not returned": (b"data: {}\n\ndata: {", [b"{}"], 1),
    "a single line end does not end a frame": (b"data: {}\n", [], 0),
    "nothing": (b"", [], 0),
}


def splits(data: bytes) -> dict[str, list[bytes]]:
    halves = {f"cut at {at}": [data[:at], data[at:]] for at in range(len(data) + 1)}
    return {"whole": [data], "byte by byte": [data[at : at + 1] for at in range(len(data))], **halves}


@pytest.mark.parametrize(("data", "payloads", "frames"), CASES.values(), ids=CASES)
def test_payloads_and_frames_for_every_split(data: bytes, payloads: list[bytes], frames: int) -> None:
    for split, parts in splits(data).items():
        splitter = FrameSplitter(LIMIT)
        found = [payload for part in parts for payload in splitter.feed(part)]
        assert (found, splitter.frames, splitter.too_large) == (payloads, frames, False), split


def test_a_payload_is_returned_by_the_read_that_completes_it() -> None:
    splitter = FrameSplitter(LIMIT)
    assert splitter.feed(b"data: 1\n\ndata: 2\n") == [b"1"]
    assert splitter.feed(b"\ndata: 3") == [b"2"]
    assert splitter.feed(b"\n\n") == [b"3"]


@pytest.mark.parametrize("prefix", [b"", b"data: first\n\n"])
@pytest.mark.parametrize("size", [1, 7, 100, 4096])
def test_a_frame_beyond_the_limit_is_reported_and_earlier_frames_are_returned(prefix: bytes, size: int) -> None:
    stream = prefix + b"data: " + b"x" * 2 * LIMIT + b"\n\ndata: after\n\n"
    splitter = FrameSplitter(LIMIT)
    found: list[bytes] = []
    for at in range(0, len(stream), size):
        found += splitter.feed(stream[at : at + size])
        if splitter.too_large:
            break
    assert splitter.too_large
    assert found == ([b"first"] if prefix else [])


def test_many_frames_in_one_read_may_exceed_the_limit_together() -> None:
    splitter = FrameSplitter(100)
    assert splitter.feed(b"data: 12345678\n\n" * 50) == [b"12345678"] * 50
    assert not splitter.too_large


def test_a_long_frame_in_many_reads_is_joined() -> None:
    splitter = FrameSplitter(10_000)
    assert [payload for _ in range(900) for payload in splitter.feed(b"data: 4567"[:10])] == []
    assert not splitter.too_large
    assert len(splitter.feed(b"\n\n")[0]) == 9000 - len("data: ")


def test_a_frame_of_many_lines_is_read_once_at_its_end() -> None:
    splitter = FrameSplitter(10_000)
    assert [payload for _ in range(900) for payload in splitter.feed(b"data: 1\r\n")] == []
    assert splitter.feed(b"\r") == []
    assert splitter.feed(b"\n") == [b"\n".join([b"1"] * 900)]
    assert splitter.feed(b"data: 2\n\ndata: 3\n") == [b"2"]
    assert splitter.feed(b"\n") == [b"3"]


def test_a_carriage_return_alone_ends_no_line() -> None:
    splitter = FrameSplitter(LIMIT)
    assert splitter.feed(b"data: a\r") == []
    assert splitter.feed(b"b\n\r") == []
    assert splitter.feed(b"\n") == [b"a\rb"]


def test_a_frame_may_be_as_large_as_the_limit() -> None:
    splitter = FrameSplitter(10)
    assert splitter.feed(b"data: 1234") == []
    assert not splitter.too_large
    assert splitter.feed(b"5") == []
    assert splitter.too_large
