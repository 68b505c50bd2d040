"""Slows down addresses that guess keys. Valid keys are never delayed, so no client can lock out others.

Only different wrong keys count, since a client that repeats one key is not guessing. The length of keys protects
against guessing; the pauses limit the work and the number of log lines.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct, field

from openai_dify_proxy.errors import TooManyWrongKeys

FREE = 10
"""Wrong keys of one address before the first pause."""

REMEMBERED = 16
"""Wrong keys of one address that do not count again."""

LONGEST_PAUSE = 60.0
FORGET_SECONDS = 600.0
MAX_ADDRESSES = 10_000


class _Guesses(Struct):
    count: int = 0
    last: float = 0.0
    pause_ends: float = 0.0
    keys: OrderedDict[int, None] = field(default_factory=OrderedDict)


class WrongKeys:
    """The wrong keys of each address. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._addresses: OrderedDict[str, _Guesses] = OrderedDict()

    def __len__(self) -> int:
        return len(self._addresses)

    def count(self, address: str, key: str) -> None:
        """Count a wrong key. Raises TooManyWrongKeys while the address pauses; the pauses double up to a minute."""
        now = self._clock()
        guesses = self._guesses_of(_network(address), now)
        digest = hash(key)
        if digest in guesses.keys:
            return
        left = math.ceil(guesses.pause_ends - now)
        if left > 0:
            raise TooManyWrongKeys(
                f"The API key is invalid, like others from your address. Try again in {left} s, with a valid key.",
                retry_after=left,
            )
        guesses.count += 1
        guesses.last = now
        guesses.keys[digest] = None
        if len(guesses.keys) > REMEMBERED:
            guesses.keys.popitem(last=False)
        if guesses.count > FREE:
            guesses.pause_ends = now + min(LONGEST_PAUSE, 2.0 ** min(guesses.count - FREE - 1, 10))

    def _guesses_of(self, network: str, now: float) -> _Guesses:
        guesses = self._addresses.get(network)
        if guesses is None or now - guesses.last > FORGET_SECONDS:
            guesses = self._addresses[network] = _Guesses()
        self._addresses.move_to_end(network)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        return guesses


def _network(address: str) -> str:
    """Return the address, or the first half of an IPv6 address, which one machine has all of."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed) >> 64 << 64))
