"""A gate whose process shares the slots of a Dify, and a separate process with one: ``python -m tests.turns.gates``.

The process prints ``ready`` when it has ``COUNT`` slots, and holds them until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from secrets import token_bytes

from openai_dify_proxy.state import GuardedStore, open_store
from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.gate import Gate
from openai_dify_proxy.turns.admission.share import Share
from openai_dify_proxy.turns.admission.slots import Slot
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.client import ConnectedClient
from tests.limits import PATIENCE

URL = "http://dify.example/v1"
LEASE = 3.0
"""The lifetime of a lease in these tests, in seconds."""


async def no_probe() -> int:
    return 0


class SharingGate:
    """A gate with its own connection to the state at ``state_url``."""

    def __init__(self, store: GuardedStore, limit: int | None, *, workers: int = 1) -> None:
        self.store = store
        share = Share(store, URL, token_bytes(8), workers=workers, lease=LEASE)
        self.gate = Gate(URL, limit=limit, max_queued=1000, probe=no_probe, share=share)
        self.slots: list[Slot] = []

    async def enter(self) -> Slot:
        """Wait for a slot."""
        slot = self.gate.try_enter() or await self.gate.wait(
            Line("caller", None), ConnectedClient(), TurnWait(PATIENCE)
        )
        self.slots.append(slot)
        return slot

    def leave(self) -> None:
        """Leave the slot that was entered first."""
        self.slots.pop(0).leave()

    async def close(self) -> None:
        await self.gate.close()
        await self.store.close()


async def open_gate(state_url: str, limit: int | None, *, workers: int = 1) -> SharingGate:
    store = GuardedStore(await open_store(state_url, max_entries=1000, timeout=PATIENCE))
    return SharingGate(store, limit, workers=workers)


async def _hold(state_url: str, count: int) -> None:
    gate = await open_gate(state_url, count)
    for _ in range(count):
        await gate.enter()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_hold(sys.argv[1], int(sys.argv[2])))
