"""The way of one turn to its slot."""

from __future__ import annotations

import asyncio
from time import perf_counter

import structlog
from msgspec import field

from openai_dify_proxy.eager import in_task
from openai_dify_proxy.entity import Entity
from openai_dify_proxy.turns.admission.conversation_lines import ConversationLines, LinePlace
from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.gates import Gates, enter_all, try_enter_all
from openai_dify_proxy.turns.admission.slots import Slot
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.client import Client, ClientDisconnected
from openai_dify_proxy.turns.locks import RETRY_SECONDS, ConversationTaken, Lock

log = structlog.get_logger(__name__)


class Admittance(Entity):
    """Gets the slot of one turn, and gives it up while the turn must wait for its conversation.

    So turns that wait for a conversation leave Dify's slots to others. A turn waits at most as long as ``wait`` allows
    for slots, and ``patience`` seconds for conversations. ``gates`` are those that the turn passes, in their order.
    """

    _gates: Gates
    _lines: ConversationLines
    _line: Line
    _client: Client
    _wait: TurnWait
    _patience: float
    slot: Slot | None = None
    waited: float = 0.0
    """Seconds that the turn has waited for slots and for its conversation."""
    _places: dict[str, LinePlace] = field(default_factory=dict)

    def try_enter(self) -> bool:
        """Return whether the turn has a slot, without waiting."""
        if self.slot is None:
            self.slot = try_enter_all(self._gates)
        return self.slot is not None

    async def enter(self) -> Slot:
        """Wait for the slot, unless the turn has one, and return it.

        Raises the errors of ``Gate.wait``.
        """
        self.try_enter()
        if self.slot is None:
            began = perf_counter()
            try:
                self.slot = await enter_all(self._gates, self._line, self._client, self._wait, again=bool(self._places))
            finally:
                self.waited += perf_counter() - began
        return self.slot

    async def acquire(self, lock: Lock, *, param: str) -> None:
        """Acquire the lock of a conversation, as soon as it is free. Raises the errors of ``wait_until_free``."""
        while True:
            try:
                await lock.try_acquire(param=param)
            except ConversationTaken as taken:
                await self.wait_until_free(taken)
            else:
                return

    async def wait_until_free(self, taken: ConversationTaken) -> bool:
        """Give up the slot until the conversation is free, and enter again. Return False if it is not free in time.

        Raises the error of ``taken`` in that case, if it has one, and the errors of ``enter``.
        """
        self._leave_slot()
        is_free = await self._until_free(taken)
        if not is_free and taken.error is not None:
            raise taken.error
        await self.enter()
        return is_free

    def leave(self) -> None:
        """Leave the slot and the lines. A turn that has begun holds the slot for itself."""
        self._leave_slot()
        while self._places:
            self._lines.leave(self._places.popitem()[1])

    def _leave_slot(self) -> None:
        if self.slot is not None:
            self.slot.leave()
            self.slot = None

    async def _until_free(self, taken: ConversationTaken) -> bool:
        place = self._places.get(taken.key) or self._lines.join(taken.key, self._line)
        if place is None:
            return False
        self._places[taken.key] = place
        log.debug("conversation_awaited", waiting=len(self._lines))
        now = asyncio.get_running_loop().time
        began = now()
        self._client.on_disconnect(place.wake)
        await in_task()
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.wait([place.is_first])  # a timeout must not cancel it: the turn may wait again
                while not self._client.disconnected and not await taken.is_free():  # noqa: ASYNC110 - shared state
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            return False
        finally:
            self._patience = max(0.0, self._patience - (now() - began))
            self.waited += now() - began
        if self._client.disconnected:
            raise ClientDisconnected
        return True
