"""Books what a turn used, once, when it has ended in any way."""

from __future__ import annotations

import asyncio

from openai_dify_proxy.events import TurnFinished
from openai_dify_proxy.limits.accounts import Account, Work
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.dify_stream import DifyStream

DIFY_KEYS = Account("dify-keys")
"""The account of all requests that bring their own Dify key."""


def account_of(caller: Caller) -> Account:
    if caller.dify_key is not None:
        return DIFY_KEYS
    return Account(caller.id, "" if caller.name is None or caller.name == caller.id else caller.name)


def book(ledger: Ledger, caller: Caller, work: Work) -> asyncio.Future[None] | None:
    """Book ``work``. Return a future of the write that the caller's limits need, if any."""
    return ledger.book(account_of(caller), work, caller.limits)


class Booking:
    """The booking of one turn of ``caller`` with the app ``app``."""

    __slots__ = (
        "_app",
        "_booked",
        "_caller",
        "_ledger",
    )

    def __init__(self, ledger: Ledger, caller: Caller, app: str) -> None:
        self._ledger = ledger
        self._caller = caller
        self._app = app
        self._booked = False

    def end(self, stream: DifyStream) -> asyncio.Future[None] | None:
        """Book the turn, unless it is booked. Return a future of the write that its limits need, if any."""
        if self._booked:
            return None
        self._booked = True
        work = Work(self._app, _outcome(stream), stream.usage, started=stream.ran)
        return book(self._ledger, self._caller, work)


def _outcome(stream: DifyStream) -> str:
    """Return how the turn ended, in one word."""
    if stream.last is None:
        return "client_gone" if stream.client_disconnected else "cancelled"
    return stream.last.reason if isinstance(stream.last, TurnFinished) else "turn_failed"
