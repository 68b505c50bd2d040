"""Books what a turn used, once, when it has ended in any way."""

from __future__ import annotations

import asyncio

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.events import TurnFinished
from openai_dify_proxy.limits.accounts import Account, Work
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.dify_stream import DifyStream

DIFY_KEYS = Account("dify-keys")
"""The account of all requests that bring their own Dify key."""


def book(ledger: Ledger, caller: Caller, work: Work) -> asyncio.Future[None] | None:
    """Book ``work``. Return a future of the write that the caller's limits need, if any."""
    if caller.dify_key is not None:
        account = DIFY_KEYS
    else:
        account = Account(caller.id, "" if caller.name is None or caller.name == caller.id else caller.name)
    return ledger.book(account, work, caller.limits)


class Booking(Entity):
    """The booking of one turn of ``caller`` with the app ``app``."""

    _ledger: Ledger
    _caller: Caller
    _app: str
    _booked: bool = False

    def end(self, stream: DifyStream) -> asyncio.Future[None] | None:
        """Book the turn, unless it is booked. Return a future of the write that its limits need, if any."""
        if self._booked:
            return None
        self._booked = True
        last = stream.last
        if last is None:
            outcome = "client_gone" if stream.client_disconnected else "cancelled"
        else:
            outcome = last.reason if isinstance(last, TurnFinished) else "turn_failed"
        return book(self._ledger, self._caller, Work(self._app, outcome, stream.usage, started=stream.ran))
