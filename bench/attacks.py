"""The attacks on the proxy, with their goals.

`python -m bench.attacks NAME HOST PORT SECONDS` carries one out and prints how its requests were answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import uvloop

from bench import hostile_clients as hostile
from bench.hostile_clients import CALLER, FILL, MIB, ROLE_LINE, STRANGER, Victim, assistant, user
from bench.limits import allow_many_connections

LARGE = 30 * MIB

SILENCE_GOAL = 0.2
"""Seconds; for attacks without bodies over one MiB."""
LARGE_BODY_SILENCE_GOAL = 2.0
MEMORY_GOAL = 150e6
"""Bytes above idle during an attack."""
MEMORY_LEFT_GOAL = 75e6
"""Bytes above idle, ten seconds after an attack. glibc retains up to 64 MiB for reuse after it freed large blocks."""


@dataclass(frozen=True, slots=True)
class Attack:
    """`who` can carry it out: anyone without a key, any Dify key, a caller with a client key, or the app's model."""

    name: str
    who: str
    what: str
    run: hostile.Attack
    large: bool = False
    """Whether it sends bodies of more than one MiB."""
    files: int | None = None
    """A limit of open files for the proxy."""

    @property
    def silence_goal(self) -> float:
        return LARGE_BODY_SILENCE_GOAL if self.large else SILENCE_GOAL


def _sizes(name: str, who: str, what: str, make: Callable[[int], hostile.Attack]) -> list[Attack]:
    """Return an attack with bodies of one MiB and one with bodies of 30 MiB."""
    small = Attack(name, who, f"1 MiB of {what}", make(MIB))
    return [small, Attack(f"{name}-large", who, f"30 MiB of {what}", make(LARGE), large=True)]


async def _nothing(victim: Victim) -> None:
    await asyncio.sleep(5)


ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in [
        Attack("none", "", "nothing: the silence of this machine", _nothing),
        *_sizes(
            "C1-think", "caller", "`<think></think>` in a message", lambda n: hostile.long_message("<think></think>", n)
        ),
        Attack(
            "C1-think-key",
            "Dify key",
            "1 MiB of `<think></think>` in a message",
            hostile.long_message("<think></think>", MIB, key=STRANGER),
        ),
        Attack(
            "C1-think-item",
            "caller",
            "1 MiB of `<think></think>` in an input item",
            hostile.long_message("<think></think>", MIB, path="/v1/responses"),
        ),
        Attack("C1-think-model", "model", "1 MiB of `<think></think>` in one event", hostile.dify_attack("think")),
        Attack("C2-pipeline", "no key", "pipelined requests, answers never read", hostile.pipeline),
        Attack(
            "H1-large",
            "Dify key",
            "six conversations of 50 MB",
            hostile.conversations(6, 50_000_000, STRANGER),
            large=True,
        ),
        Attack(
            "H1-large-caller",
            "caller",
            "six conversations of 50 MB",
            hostile.conversations(6, 50_000_000, CALLER),
            large=True,
        ),
        Attack("F1-pictures", "caller", "20 pictures of 20 MB at once", hostile.pictures, large=True),
        Attack("H1-small", "Dify key", "many conversations of 1 kB", hostile.conversation_flood),
        Attack("H2-references", "caller", "400 references to a stored answer of 1 MB", hostile.references),
        Attack("H3-half-bodies", "Dify key", "20 bodies, 59 of 60 MB sent", hostile.half_bodies, large=True),
        Attack("H4-silent", "no key", "3000 silent connections", hostile.silent_connections),
        Attack(
            "H4-silent-256", "no key", "3000 silent connections, 256 open files", hostile.silent_connections, files=256
        ),
        Attack(
            "H5-headers",
            "no key",
            "four heads of 100 MiB",
            hostile.endless_head(b"GET /health HTTP/1.1\r\n", b"X-Header: " + b"v" * 4000 + b"\r\n", 100 * MIB),
        ),
        Attack(
            "H5-url", "no key", "four URLs of 57 MiB", hostile.endless_head(b"GET /health?x=", b"v" * 65_536, 57 * MIB)
        ),
        Attack(
            "H6-stored-stream",
            "caller",
            "40 readers of a stored 8 MB stream that read nothing",
            hostile.unread_response,
        ),
        *_sizes("M1-items", "caller", "input items", lambda n: hostile.input_items(user(FILL), n)),
        *_sizes(
            "M1-messages",
            "caller",
            "alternating messages",
            lambda n: hostile.messages(user(FILL), assistant(FILL), size=n),
        ),
        *_sizes(
            "M1-tools",
            "caller",
            "calls of tools and their results",
            lambda n: hostile.messages(hostile.TOOL_CALL, hostile.tool_result(FILL), size=n),
        ),
        *_sizes("M1-role-lines", "caller", "role lines in a message", lambda n: hostile.long_message(ROLE_LINE, n)),
        *_sizes("M1-conversation", "caller", "conversation items", lambda n: hostile.conversation_items(user(FILL), n)),
        *_sizes("M1-parts", "caller", "content parts", hostile.content_parts),
        *_sizes("M1-empty", "caller", "empty objects", lambda n: hostile.messages({}, size=n, number=n // 3)),
        *_sizes(
            "M1-many", "caller", "the shortest messages", lambda n: hostile.messages(user(""), size=n, number=n // 33)
        ),
        Attack("M2-headers", "Dify", "endless headers", hostile.dify_attack("headers", requests=1)),
        Attack("M2-header-value", "Dify", "an endless header value", hostile.dify_attack("header-value", requests=1)),
        Attack(
            "M2-node-retry",
            "Dify",
            "a node retry that repeats 1 MB in small deltas",
            hostile.dify_attack("node-retries"),
        ),
        Attack("L7-unread", "caller", "150 streams of a flood that nobody reads", hostile.unread_flood),
        Attack("burst", "Dify", "20 000 events in one write", hostile.dify_attack("burst")),
        Attack(
            "junk-keys", "Dify key", "200 clients with ever new keys that Dify rejects after 2 s", hostile.junk_keys
        ),
    ]
}


async def carry_out(name: str, host: str, port: int, seconds: float) -> Counter[str]:
    victim = Victim(host, port)
    try:
        async with asyncio.timeout(seconds):
            await ATTACKS[name].run(victim)
    except TimeoutError:
        pass  # attacks that hold connections do not end by themselves
    return +victim.seen


def main() -> None:
    allow_many_connections()
    name, host, port, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(carry_out(name, host, int(port), float(seconds)))))


if __name__ == "__main__":
    main()
