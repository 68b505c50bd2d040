"""The turns that wait for the same conversations, without a slot."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from openai_dify_proxy.turns.admission.fair_queue import FairQueue, Line


class LinePlace:
    """The place of a turn in the line of a conversation. ``is_first`` is done once no other turn is before it."""

    __slots__ = ("is_first", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.is_first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """End the wait for ``is_first``."""
        if not self.is_first.done():
            self.is_first.set_result(None)


class ConversationLines:
    """One line for each conversation. Only the first turn of a line reads the state, and competes for a slot.

    The lines of one Dify have ``places`` places in all, and up to twice as many for callers with less than an equal
    share of them.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: FairQueue[LinePlace] = FairQueue()
        self._lines: dict[str, OrderedDict[LinePlace, None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, key: str, line: Line) -> LinePlace | None:
        """Return the last place in the line of the conversation ``key``; None if all places are taken."""
        if not self._waiting.has_place(line.caller, self._places):
            return None
        place = LinePlace(key)
        self._waiting.push(place, line)
        places = self._lines.setdefault(key, OrderedDict())
        places[place] = None
        if len(places) == 1:
            place.wake()
        return place

    def leave(self, place: LinePlace) -> None:
        """Leave the line: the turn has ended, or waits no longer."""
        self._waiting.remove(place)
        places = self._lines[place.key]
        del places[place]
        if places:
            next(iter(places)).wake()
        else:
            del self._lines[place.key]
