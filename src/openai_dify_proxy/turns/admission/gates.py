"""The gates on the way of a turn, in their order: that of its caller, then that of its Dify.

A turn that its caller's limit holds back has no slot of Dify, so that it takes nothing from others.
"""

from __future__ import annotations

from collections.abc import Sequence

from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.gate import Gate
from openai_dify_proxy.turns.admission.slots import UNLIMITED, Slot
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.client import Client

Gates = Sequence[Gate]


def try_enter_all(gates: Gates) -> Slot | None:
    """Return the slot of the last gate, which holds those of the others, if all gates have one free."""
    held: Slot | None = None
    for gate in gates:
        slot = gate.try_enter()
        if slot is None:
            if held is not None:
                held.leave()
            return None
        slot.behind, held = held, slot
    return held or UNLIMITED


async def enter_all(gates: Gates, line: Line, client: Client, wait: TurnWait, *, again: bool = False) -> Slot:
    """Wait for a slot of each gate, and return that of the last, which holds the others. Raises as ``Gate.wait``."""
    held: Slot | None = None
    try:
        for gate in gates:
            slot = gate.try_enter() or await gate.wait(line, client, wait, again=again)
            slot.behind, held = held, slot
    except BaseException:
        if held is not None:
            held.leave()
        raise
    return held or UNLIMITED
