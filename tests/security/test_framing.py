"""Requests with an ambiguous end: they are rejected, and later bytes of the connection are not read.

The other way round, framing that is unusual but unambiguous is read as RFC 9112 defines it.
"""

from __future__ import annotations

import gzip
import socket
import zlib

import httpx2
import pytest

from openai_dify_proxy_demo import DemoLog
from tests.api.chat_requests import error_of
from tests.api.servers import ProxyServer
from tests.limits import PATIENCE

NEXT = b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = b"POST /v1/conversations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SIZED = b"Content-Length: 2\r\n\r\n{}"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"

LENGTHS = (b"+2", b"2, 2", b"0x2", b"-1", b"", b"2;", b"2\x00", b"2.0", b"9" * 20, b"\xb2", b"2e0", b"2_0")
ENCODINGS = (
    *(b"chunked, identity", b"xchunked", b"chunked\x0b", b"identity", b"chunked, chunked", b"chunked;q=1"),
    *(b"\x00chunked", b"", b'"chunked"', b"chunked\r\nTransfer-Encoding: identity"),
)
END = b"\r\n0\r\n\r\n"
BAD_CHUNKS = (
    *(size + b"\r\n{}" + END for size in (b"F" * 17, b"-2", b"0x2", b"2 ", b" 2", b"", b"2_0", b"+2", b"3", b"1")),
    *(size + b"{}" + END for size in (b"2\r", b"2;\nx\r\n", b'2;a="\r\n')),
    *(b"2\r\n{}" + end for end in (b"0\r\n\r\n", b"xx0\r\n\r\n", b"\r\n0\r\n\n", b"\r\n0\r\nGET / HTTP/1.1\r\n\r\n")),
    b"2\n{}\n0\n\n",
    b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
)

AMBIGUOUS = {
    "a length, then chunks": POST + b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n",
    "chunks, then a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 80\r\n" + SIZED,
    "one length twice": POST + b"Content-Length: 2\r\n" + SIZED,
    **{f"length {value!r}": POST + b"Content-Length: " + value + b"\r\n\r\n{}" for value in LENGTHS},
    **{f"encoding {value!r}": POST + b"Transfer-Encoding: " + value + b"\r\n\r\n" + CHUNKS for value in ENCODINGS},
    **{f"chunks {value!r}": POST + CHUNKED + value for value in BAD_CHUNKS},
    "a space before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "another space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "a folded encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "a folded header": POST + b"A: b\r\n Content-Length: 80\r\n" + SIZED,
    "a fold at once": POST.replace(b"\r\n", b"\r\n A: b\r\n", 1) + SIZED,
    "NUL": POST + b"A: \x00\r\n" + SIZED,
    "a bare CR": POST + b"A: b\rContent-Length: 80\r\n" + SIZED,
    "bare line feeds": (POST + SIZED).replace(b"\r\n", b"\n"),
    "no colon": POST + b"foo\r\n" + SIZED,
    "no name": POST + b": x\r\n" + SIZED,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET /health HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "a space in the URL": b"GET /health x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method in small letters": b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}

UNAMBIGUOUS = {
    "spaces behind a length": POST + b"Content-Length: 2 \t\r\n\r\n{}",
    "capitals": POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n" + CHUNKS,
    "a tab": POST + b"Transfer-Encoding:\tchunked\r\n\r\n" + CHUNKS,
    "a trailer": POST + CHUNKED + b"2\r\n{}\r\n0\r\nX: y\r\n\r\n",
    "two zeros": POST + CHUNKED + b"2\r\n{}\r\n00\r\n\r\n",
    "a chunk extension": POST + CHUNKED + b"2;a=b\r\n{}\r\n0\r\n\r\n",
    "GET with a body": b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 80\r\n\r\n"
    + b"GET / HTTP".ljust(80),
    "an upgrade": POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + SIZED,
}


def answers(port: int, data: bytes) -> bytes:
    """Send bytes and return all bytes from the server until it closes the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        try:
            client.sendall(data)
            while part := client.recv(65536):
                received += part
        except ConnectionResetError:
            pass  # bytes arrived after the rejection
    return received


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_framing_is_rejected(proxy: ProxyServer, log: DemoLog, request_: bytes) -> None:
    received = answers(proxy.port, request_ + NEXT)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in received


@pytest.mark.parametrize("request_", UNAMBIGUOUS.values(), ids=UNAMBIGUOUS)
def test_unambiguous_framing_is_read_exactly(proxy: ProxyServer, log: DemoLog, request_: bytes) -> None:
    received = answers(proxy.port, request_ + NEXT)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 ") == 2
    assert received.count(b"HTTP/1.1 404 ") == 1


@pytest.mark.parametrize("head", [b"POST /v1/conversations HTTP/1.0\r\nHost: localhost\r\n", b"GET /health\r\n\r\n"])
def test_a_connection_of_an_old_version_ends_after_one_request(proxy: ProxyServer, log: DemoLog, head: bytes) -> None:
    kind = b"Content-Type: application/json\r\n"
    received = answers(proxy.port, head + kind + CHUNKED + CHUNKS + NEXT)
    assert received.count(b"HTTP/1.1 ") == 1


BOMB = b" " * 5_000_000 + b"{}"
COMPRESSED = {"gzip": gzip.compress(BOMB), "deflate": zlib.compress(BOMB), "br": b"\xcf\xff", "zstd": b"(\xb5/\xfd"}


@pytest.mark.parametrize("encoding", COMPRESSED)
async def test_compressed_bodies_are_not_decompressed(
    proxy: ProxyServer, http: httpx2.AsyncClient, log: DemoLog, encoding: str
) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    for path in ("/chat/completions", "/completions", "/responses", "/conversations"):
        reply = await http.post(proxy.url + path, content=COMPRESSED[encoding], headers=headers)
        assert reply.status_code == 400
        assert "not valid JSON" in error_of(reply)["message"]
    assert not log.requests
