"""The permission of one turn to use one of Dify's concurrent streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openai_dify_proxy.upstream.exchange import Exchange

ABORTED_SECONDS = 1.0
"""How long Dify takes to notice that a stream was aborted: 0.8 s on 1.16. The connection counts until then."""


class Slot:
    """A slot, which is free again once nothing holds it: neither the turn, nor its stop, nor an exchange with Dify.

    It is created with one hold, that of its creator. ``behind`` is the slot of another gate that the same turn holds,
    which it leaves with this one.
    """

    __slots__ = ("_holds", "_loop", "_release", "began", "behind", "exchange", "sent_at")

    def __init__(self, release: Callable[[Slot], None]) -> None:
        """``release`` is called once, when the last hold ends."""
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._holds = 1
        self.behind: Slot | None = None
        self.exchange: Exchange | None = None
        self.began = self.sent_at = self._loop.time()

    @property
    def awaits_head(self) -> bool:
        """Whether a request was sent and its response head has not arrived."""
        exchange = self.exchange
        return exchange is not None and exchange.status is None and not exchange.ended

    @property
    def is_answered(self) -> bool:
        """Whether Dify is answering the request."""
        exchange = self.exchange
        return exchange is not None and exchange.status is not None and not exchange.ended

    def hold(self) -> None:
        self._holds += 1

    def leave(self, _: object = None) -> None:
        """End one hold."""
        self._holds -= 1
        if self._holds:
            return
        behind, self.behind = self.behind, None
        self._release(self)
        if behind is not None:
            behind.exchange = self.exchange
            behind.leave()

    def attach(self, exchange: Exchange) -> None:
        """Hold the slot until Dify no longer serves ``exchange``, which has just been sent."""
        if exchange.ended:
            return
        self.exchange = exchange
        self.sent_at = self._loop.time()
        self.hold_until_end(exchange)

    def hold_until_end(self, exchange: Exchange) -> None:
        """Hold the slot as ``attach`` does, for a call whose response head comes late even if Dify is not full."""
        if not exchange.ended:
            self.hold()
            exchange.at_end = self._on_end

    def _on_end(self, aborted: bool) -> None:
        if aborted:
            self._loop.call_later(ABORTED_SECONDS, self.leave)
        else:
            self.leave()


class _Unlimited(Slot):
    """The slot of all turns in a Dify without a limit."""

    def __init__(self) -> None:
        pass

    def hold(self) -> None:
        pass

    def leave(self, _: object = None) -> None:
        pass

    def attach(self, exchange: Exchange) -> None:
        pass

    def hold_until_end(self, exchange: Exchange) -> None:
        pass


UNLIMITED: Slot = _Unlimited()
