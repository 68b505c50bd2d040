"""Requests whose head is that of an earlier request on their connection, which is not parsed again."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.test_connections import DEADLINE, GET, Client, Door, door, patient_door, post, wait_until

HOT = b"/hot?a=%20b"


@pytest.fixture(scope="module")
def hot_door() -> Iterator[Door]:
    with door() as opened:
        yield opened


@pytest.fixture
def shared(hot_door: Door) -> Iterator[Door]:
    hot_door.app.hot.heads.clear()
    yield hot_door
    hot_door.disconnect_all()


def answer(client: Client, request: bytes) -> tuple[int, bytes]:
    """Return the answer to a request, without the client's port."""
    status, body = client.send(request).response()
    return status, body.replace(b"%d" % client.socket.getsockname()[1], b"")


def parsed(door: Door) -> int:
    """Return how many heads of requests for the hot path were parsed."""
    return len({id(head[0]) for head in door.app.hot.heads})


def test_the_head_of_the_next_request_is_not_parsed_again(shared: Door) -> None:
    client = shared.connect()
    for body in (b"hello", b"x" * 100, b"y", b"x" * 1000):
        status, seen = answer(client, post(body, HOT, b"X-One: 1\r\n"))
        assert status == 200
        assert b"(b'x-one', b'1')" in seen
        assert b"(b'content-length', b'%d')" % len(body) in seen
        assert seen.endswith(repr(body).encode() + b"]")
    assert len(shared.app.hot.heads) == 4
    assert parsed(shared) == 1


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_its_body_may_arrive_in_pieces(shared: Door, size: int) -> None:
    client = shared.connect()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    expected = answer(client, post(b"z" * size, HOT))
    head, _, body = post(b"z" * size, HOT).partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    for start in range(0, size, 400):
        assert shared.connect().send(GET).response()[0] == 200  # the part before has been read
        client.send(body[start : start + 400])
    assert answer(client, b"") == expected
    assert parsed(shared) == 1


def test_the_application_gets_a_scope_of_its_own(shared: Door) -> None:
    client = shared.connect()
    for _ in range(3):
        assert answer(client, post(b"hello", HOT))[0] == 200
        assert answer(client, post(b"app", HOT)) == (200, b"POST /hot 3\n")
    assert parsed(shared) == 1


def test_only_the_head_of_a_request_that_the_hot_path_serves_is_kept(shared: Door) -> None:
    client = shared.connect()
    for _ in range(2):
        assert answer(client, post(b"app", HOT))[0] == 200
    assert parsed(shared) == 2
    assert len(shared.front.known_heads) == 0


def test_each_connection_has_its_own_client(shared: Door) -> None:
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        client = shared.connect(address)
        for _ in range(2):
            assert f"'{address}'".encode() in answer(client, post(b"hello", HOT))[1].rpartition(b"(")[0]


@pytest.mark.parametrize(
    "other",
    [
        post(b"hello", b"/hot"),
        post(b"hello", HOT, b"Connection: close\r\n"),
        post(b"", HOT),
        post(b"x" * 1001, HOT),
        post(b"hello", HOT).replace(b"Content-Length: 5", b"Content-Length: +5"),
        post(b"hello", HOT).replace(b"Content-Length: 5", b"Content-Length: 5 5"),
        post(b"hello", HOT).replace(b"Content-Length: 5", b"Content-Length: 999999999999999999999"),
        post(b"hello", HOT).replace(b"Content-Length: 5", b"Content-Length: \xd9\xa5"),
        post(b"hello", HOT).replace(b"Content-Length: 5", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        post(b"5\r\nhello\r\n0\r\n\r\n", HOT).replace(b"Content-Length: 15", b"Transfer-Encoding: chunked"),
        GET,
    ],
)
def test_other_heads_are_answered_as_on_a_new_connection(shared: Door, other: bytes) -> None:
    known = shared.connect()
    assert answer(known, post(b"hello", HOT))[0] == 200
    assert answer(known, other) == answer(shared.connect(), other)


def test_a_body_that_looks_like_a_head_is_none(shared: Door) -> None:
    client = shared.connect()
    fake = b"POST /hot HTTP/1.1\r\ncontent-length: 5\r\n\r\n"
    assert answer(client, post(fake + b"hello", HOT))[0] == 200
    assert answer(client, fake + b"hello")[0] == 200
    assert parsed(shared) == 2


def test_a_slow_body_is_rejected() -> None:
    with patient_door() as (opened, loop):
        client = opened.connect()
        assert answer(client, post(b"hello", HOT))[0] == 200
        client.send(post(b"hello", HOT)[:-1])
        wait_until(lambda: opened.front.reading)
        loop.move(DEADLINE)
        assert client.error() == (408, "request_timeout")


def test_a_draining_server_ends_the_connection(shared: Door) -> None:
    client = shared.connect()
    assert answer(client, post(b"hello", HOT))[0] == 200
    shared.front.draining = True
    try:
        assert answer(client, post(b"hello", HOT))[0] == 200
        assert client.closed()
    finally:
        shared.front.draining = False


def test_heads_are_forgotten_with_their_connections(shared: Door) -> None:
    clients = [shared.connect() for _ in range(3)]
    for client in clients:
        assert answer(client, post(b"hello", HOT))[0] == 200
    assert len(shared.front.known_heads) == 1
    shared.disconnect_all()
    wait_until(lambda: len(shared.front.known_heads) == 0)


requests = st.builds(
    post,
    st.sampled_from([b"a", b"hello", b"app", b"x" * 999, b"x" * 1001, b"b\r\n\r\nPOST ", b""]),
    st.sampled_from([b"/hot", HOT, b"/b"]),
    st.sampled_from([b"", b"X-One: 1\r\n", b"x-one: 1\r\n"]),
)


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(
    sent=st.lists(requests, min_size=2, max_size=8),
    cuts=st.lists(st.integers(0, 9000), max_size=6),
    pipelined=st.booleans(),
)
def test_one_connection_answers_as_many_do(hot_door: Door, sent: list[bytes], cuts: list[int], pipelined: bool) -> None:
    sent = [*sent, post(b"last", HOT)]
    alone = [answer(hot_door.connect(), one) for one in sent]
    client = hot_door.connect()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answers = []
    for data in [b"".join(sent)] if pipelined else sent:
        ends = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
        for start, end in itertools.pairwise(ends):
            client.send(data[start:end])
        answers += [answer(client, b"") for _ in (sent if pipelined else [data])]
    assert answers == alone
    hot_door.disconnect_all()
