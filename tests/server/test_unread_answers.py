"""Clients that do not read whole answers: the proxy waits with the next one, and not for ever."""

from __future__ import annotations

import socket

import pytest
from structlog.testing import capture_logs

from tests.server.test_connections import DEADLINE, GET, LARGE, Client, Door, door, patient_door, wait_until

LARGE_ANSWER = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_ANSWER = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def unread(opened: Door, request: bytes) -> Client:
    """Send a request and read only the first byte of the response, which the server cannot send at once."""
    opened.server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    client = opened.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
    client.send(request)
    assert client.socket.recv(1) == b"H"
    wait_until(lambda: opened.front.unread)
    return client


def test_the_next_request_waits_until_the_client_has_read_a_large_answer() -> None:
    with door() as opened:
        client = unread(opened, LARGE_ANSWER * 2 + GET)
        wait_until(lambda: opened.front.holding)
        assert opened.app.requests == 1
        assert opened.front.write_buffers.total < LARGE
        assert [client.response() for _ in range(2)] == [(200, bytes(LARGE))] * 2
        assert client.response() == (200, b"GET /a 0\n")
        assert opened.front.write_buffers.total == 0


@pytest.mark.parametrize("request_", [LARGE_ANSWER, LAST_ANSWER, LARGE_ANSWER * 2], ids=["idle", "closing", "next"])
def test_a_client_that_reads_nothing_of_a_whole_answer_is_disconnected(request_: bytes) -> None:
    with patient_door() as (opened, loop), capture_logs() as logs:
        unread(opened, request_)
        for _ in range(2):  # the first sweep finds the unread bytes, the second as many
            loop.move(DEADLINE)
        wait_until(lambda: not opened.server.server_state.connections)
        assert [entry["event"] for entry in logs if entry["event"] == "client_stalled"] == ["client_stalled"]
        assert opened.app.requests == 1
        assert (opened.front.write_buffers.total, opened.front.unread, opened.front.idle) == (0, {}, {})


def test_a_client_that_reads_a_large_answer_slowly_is_not_idle() -> None:
    """It reads for longer than an idle connection stays open, and than a client may take that reads too little."""
    with patient_door() as (opened, loop):
        client = unread(opened, LARGE_ANSWER)
        seen = b""
        for _ in range(4):
            seen += client.file.read(LARGE // 8)  # more than the kernel's buffers hold
            loop.move(0.6 * DEADLINE)
        assert opened.front.unread, "the answer is too small"
        _, _, body = seen.partition(b"\r\n\r\n")
        assert len(client.file.read(LARGE - len(body))) == LARGE - len(body)
        loop.move(DEADLINE)
        assert client.closed()
