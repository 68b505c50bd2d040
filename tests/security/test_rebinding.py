"""Host names that change their address after the check: the proxy connects to checked addresses only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.upstream.fetch import GuardedFetcher
from tests.limits import PATIENCE
from tests.upstream.raw_server import by_path, moved, raw_server, reply

PUBLIC = "127.0.0.2"
"""A loopback address that these tests treat as public."""

PRIVATE = "127.0.0.1"

PICTURE = b"\x89PNG\r\n\x1a\n and more"


class ChangingNames:
    """A resolver of the event loop that returns the next list of addresses with each lookup, and then the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Sequence[str]) -> None:
        self.answers = [*answers]
        self.lookups = 0
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._resolve)

    async def _resolve(self, host: str, port: int, **_: Any) -> list[Any]:
        self.lookups += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)) for address in found]


def guarded_fetcher() -> GuardedFetcher:
    return GuardedFetcher(connect_timeout=PATIENCE, public=lambda address: address == PUBLIC)


@pytest.mark.parametrize(
    "answers", [[[PUBLIC], [PRIVATE]], [[PRIVATE], [PUBLIC]], [[PUBLIC, PRIVATE]], [[PRIVATE, PUBLIC]], [[PRIVATE]]]
)
async def test_a_name_that_changes_never_leads_to_a_private_address(
    monkeypatch: pytest.MonkeyPatch, answers: list[list[str]]
) -> None:
    """The public address has no server on this port, so that the fetcher would try the private one next."""
    names = ChangingNames(monkeypatch, *answers)
    fetcher = guarded_fetcher()
    async with raw_server(reply(200, PICTURE), PRIVATE) as server:
        port = server.origin.rpartition(":")[2]
        for _ in range(3):
            with pytest.raises(InvalidRequest):
                await fetcher.read(f"http://changing.example:{port}/x.png", 100, "mask")
        assert server.connections == 0
    assert names.lookups >= 1
    await fetcher.close()


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a second lookup: the name belongs to a private address by then."""
    async with raw_server(by_path({"/a": moved("/b"), "/b": reply(200, PICTURE)}), PUBLIC) as server:
        port = server.origin.rpartition(":")[2]
        names = ChangingNames(monkeypatch, [PUBLIC], [PRIVATE])
        fetcher = guarded_fetcher()
        assert await fetcher.read(f"http://changing.example:{port}/a", 100, "mask") == PICTURE
        assert names.lookups == 1
        await fetcher.close()
