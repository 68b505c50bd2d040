"""A turn on its way to a slot, which waits for its conversation without one."""

from __future__ import annotations

import asyncio

import pytest

from openai_dify_proxy.errors import ConversationBusy, QueueTimeout
from openai_dify_proxy.state import GuardedStore
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.turns.admission.admittance import Admittance
from openai_dify_proxy.turns.admission.conversation_lines import ConversationLines, LinePlace
from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.gate import Gate
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.client import ConnectedClient
from openai_dify_proxy.turns.locks import ConversationTaken, Lock
from tests.api.raw_client import until
from tests.limits import PATIENCE
from tests.turns.gates import URL, no_probe

CALLER = Line("caller", None)


class Setup:
    """A gate with one slot, the lines in front of it, and a lock that is held."""

    def __init__(self, *, places: int = 10) -> None:
        self.gate = Gate(URL, limit=1, max_queued=10, probe=no_probe, share=None)
        self.lines = ConversationLines(places)
        self.store = GuardedStore(MemoryStore(max_entries=100))
        self.holder = self.lock()

    def lock(self) -> Lock:
        return Lock(self.store, "conversation", "caller")

    async def release(self) -> None:
        await self.store.run(*await self.holder.release_operations())

    def turn(self, *, wait: TurnWait | None = None, patience: float = PATIENCE, line: Line = CALLER) -> Admittance:
        wait = wait or TurnWait(PATIENCE)
        return Admittance([self.gate], self.lines, line, ConnectedClient(), wait, patience)


async def setup(*, places: int = 10) -> Setup:
    here = Setup(places=places)
    await here.holder.try_acquire()
    return here


async def test_a_turn_that_waits_has_a_slot_again_with_the_lock() -> None:
    here = await setup()
    turn, lock = here.turn(), here.lock()
    await turn.enter()
    acquiring = asyncio.create_task(turn.acquire(lock, param="p"))
    await until(lambda: not here.gate.in_use)
    other = here.turn()
    assert other.try_enter()
    await here.release()
    await until(lambda: here.gate.queued == 1)
    other.leave()
    await acquiring
    assert turn.slot is not None
    turn.leave()
    assert (here.gate.in_use, len(here.lines)) == (0, 0)
    await here.store.run(*await lock.release_operations())


async def test_the_waits_for_slots_share_one_limit() -> None:
    here = await setup()
    wait = TurnWait(PATIENCE)
    turn, other = here.turn(wait=wait), here.turn()
    await turn.enter()
    acquiring = asyncio.create_task(turn.acquire(here.lock(), param="p"))
    await until(lambda: not here.gate.in_use)
    await other.enter()
    wait.leave(PATIENCE)  # as if the turn had waited for its first slot as long as it may
    await here.release()
    with pytest.raises(QueueTimeout, match=f"busy with other requests for {PATIENCE:g} s"):
        await acquiring
    turn.leave()
    other.leave()
    assert (here.gate.in_use, here.gate.queued, len(here.lines)) == (0, 0, 0)


async def test_the_waits_for_conversations_share_one_limit() -> None:
    """Without an error, the turn continues when it has waited long enough."""
    here = await setup()
    turn = here.turn(patience=0.1)
    head = ConversationTaken("head", here.holder.is_free, None)
    assert await turn.wait_until_free(head) is False
    assert here.gate.in_use == 1
    with pytest.raises(ConversationBusy):
        await turn.acquire(here.lock(), param="p")
    assert here.gate.in_use == 0
    turn.leave()
    assert len(here.lines) == 0
    await here.release()


async def test_a_turn_behind_another_may_wait_in_vain_twice() -> None:
    here = await setup()
    first, second = here.turn(), here.turn(patience=0.05)
    head = ConversationTaken("head", here.holder.is_free, None)
    await first.enter()
    waiting = asyncio.create_task(first.wait_until_free(head))
    await until(lambda: len(here.lines) == 1)
    assert await second.wait_until_free(head) is False
    assert await second.wait_until_free(head) is False
    second.leave()
    await here.release()
    assert await waiting is True
    first.leave()
    assert (here.gate.in_use, here.gate.queued, len(here.lines)) == (0, 0, 0)


def join(lines: ConversationLines, key: str, line: Line = CALLER) -> LinePlace:
    place = lines.join(key, line)
    assert place is not None
    return place


async def test_a_place_that_is_left_makes_the_next_one_first() -> None:
    lines = ConversationLines(10)
    places = one, two, three, other = [join(lines, key) for key in ("a", "a", "a", "b")]
    assert [place.is_first.done() for place in places] == [True, False, False, True]
    lines.leave(two)
    assert not three.is_first.done()
    lines.leave(one)
    assert three.is_first.done()
    for place in (three, other):
        lines.leave(place)
    assert len(lines) == 0


async def test_a_caller_cannot_take_all_places_of_the_lines() -> None:
    lines = ConversationLines(4)
    for number in range(4):
        join(lines, f"conversation {number}", Line("many", None))
    assert lines.join("conversation 4", Line("many", None)) is None
    join(lines, "conversation 0", Line("other", None))
