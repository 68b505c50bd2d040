"""The count of the bytes that all connections buffer: beyond the limit, clients that were slow wait."""

from __future__ import annotations

from openai_dify_proxy.server.write_buffers import WriteBuffers


def test_below_the_limit_no_client_waits() -> None:
    buffers = WriteBuffers(100)
    called: list[str] = []
    buffers.add(100)
    buffers.when_below_limit(lambda: called.append("a"))
    assert called == ["a"]


def test_beyond_the_limit_clients_wait_until_enough_is_sent() -> None:
    buffers = WriteBuffers(100)
    called: list[str] = []
    for size in (60, 60, 60):
        buffers.add(size)
    buffers.when_below_limit(lambda: called.append("a"))
    buffers.when_below_limit(lambda: called.append("b"))
    buffers.remove(60)
    assert (called, buffers.total) == ([], 120)
    buffers.remove(60)
    assert (called, buffers.total) == (["a", "b"], 60)
    buffers.remove(60)
    assert (called, buffers.total) == (["a", "b"], 0), "each is called once"


def test_clients_continue_one_after_the_other_while_there_is_room() -> None:
    """The first that continues may fill the buffers again; the next then waits for it."""
    buffers = WriteBuffers(100)
    called: list[str] = []
    buffers.add(150)

    def fill(name: str) -> None:
        called.append(name)
        buffers.add(150)

    buffers.when_below_limit(lambda: fill("a"))
    buffers.when_below_limit(lambda: fill("b"))
    buffers.remove(150)
    assert (called, buffers.total) == (["a"], 150)
    buffers.remove(150)
    assert called == ["a", "b"]


def test_many_connections_continue_without_recursion() -> None:
    """Each reserves bytes and releases them at once, within the callback of the one before."""
    buffers = WriteBuffers(100)
    called: list[int] = []
    buffers.add(150)

    def write(number: int) -> None:
        called.append(number)
        buffers.add(60)
        buffers.remove(60)

    for number in range(5000):
        buffers.when_below_limit(lambda number=number: write(number))  # type: ignore[misc]
    buffers.remove(150)
    assert called == list(range(5000))


def test_a_closed_connection_waits_no_longer() -> None:
    buffers = WriteBuffers(100)
    called: list[str] = []

    def callback() -> None:
        called.append("a")

    buffers.add(150)
    buffers.when_below_limit(callback)
    buffers.forget(callback)
    buffers.forget(callback)
    buffers.remove(150)
    assert not called
