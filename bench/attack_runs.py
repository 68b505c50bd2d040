"""Carries out each attack on a new proxy, and reports the silence of `/health` and the memory that it cost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench import client, servers
from bench.attacks import MEMORY_GOAL, MEMORY_LEFT_GOAL, Attack
from bench.hostile_clients import CALLER, QUESTION, chat
from bench.limits import resident_bytes
from bench.prober import Probe, Seen, watching
from bench.report import markdown

REST_SECONDS = 10.0
"""Time after an attack until memory should be back near idle."""

HEADINGS = [
    "attack",
    "who",
    "what",
    "silence of /health (ms)",
    "CPU in a silence (ms)",
    "peak (MB above idle)",
    "after 10 s",
    "answers",
    "reached",
]


@dataclass(frozen=True, slots=True)
class Outcome:
    attack: Attack
    seen: Seen
    left: int
    """Bytes of resident memory above idle, `REST_SECONDS` after the attack or when it was back near idle."""
    answers: dict[str, int]

    @property
    def missed(self) -> list[str]:
        """The goals that the proxy missed."""
        goals = {
            "silence": self.seen.silence <= self.attack.silence_goal,
            "peak": self.seen.peak_bytes - self.seen.idle_bytes <= MEMORY_GOAL,
            "memory after": self.left <= MEMORY_LEFT_GOAL,
        }
        return [name for name, reached in goals.items() if not reached]


def run(
    attacks: Sequence[Attack],
    *,
    for_target: set[int],
    for_others: set[int],
    programs: Sequence[Path | None],
    seconds: float,
) -> list[list[Outcome]]:
    """Carry out all attacks on each program, each for at most `seconds`; None is the proxy of this checkout.

    Only Linux can limit the open files of another process.
    """
    outcomes = []
    with servers.upstream(processors=for_others, module="bench.hostile_dify") as upstream_url:
        for attack in attacks:
            if attack.files is not None and sys.platform != "linux":
                continue
            results = [_carry_out(attack, upstream_url, for_target, program, seconds) for program in programs]
            print(" | ".join(_row(results)), file=sys.stderr, flush=True)
            outcomes.append(results)
    return outcomes


def _carry_out(
    attack: Attack, upstream_url: str, processors: set[int], program: Path | None, seconds: float
) -> Outcome:
    proxy = servers.proxy(
        upstream_url,
        processors=processors,
        program=program,
        settings={"API_KEYS": CALLER},
        files=attack.files,
        patience=1,
    )
    with proxy as (url, pid):
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        _warm_up(address.hostname, address.port)
        with watching(Probe(address.hostname, address.port, pid)) as prober:
            idle = resident_bytes(pid)
            command = [sys.executable, "-m", "bench.attacks", attack.name, address.hostname, str(address.port)]
            # A lower priority than the prober's, which must not wait for the attacker.
            answers = _attack([*command, str(seconds)], seconds)
            left = _rest(pid, idle)
            seen = prober.stop()
    return Outcome(attack, seen, left, answers)


def _attack(command: list[str], seconds: float) -> dict[str, int]:
    """Run the attacker, which ends after about `seconds`; on an overloaded machine it may have to be killed."""
    try:
        done = subprocess.run(
            ["nice", *command], cwd=servers.ROOT, stdout=subprocess.PIPE, check=True, timeout=seconds + 60
        )
    except subprocess.TimeoutExpired:
        return {"attacker killed": 1}
    return {answer: int(number) for answer, number in json.loads(done.stdout).items()}


def _warm_up(host: str, port: int) -> None:
    """Ask once, so that the proxy knows the app and has loaded all of its modules."""
    body = json.dumps(chat([QUESTION])).encode()
    request = client.request("POST", host, "/v1/chat/completions", body=body, key=CALLER)
    servers.ask(host, port, request)


def _rest(pid: int, idle: int) -> int:
    """Wait until memory is back near idle, at most `REST_SECONDS`; return the bytes above idle."""
    deadline = time.monotonic() + REST_SECONDS
    while (left := resident_bytes(pid) - idle) > MEMORY_LEFT_GOAL / 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def table(outcomes: Sequence[Sequence[Outcome]]) -> str:
    """Return a Markdown table. A cell holds the values of all programs in turn, the verdict is on the last."""
    return markdown(HEADINGS, [_row(results) for results in outcomes])


def _row(results: Sequence[Outcome]) -> list[str]:
    attack, missed = results[-1].attack, results[-1].missed
    figures = zip(*map(_figures, results), strict=True)
    verdict = f"NO: {', '.join(missed)}" if missed else "yes"
    return [attack.name, attack.who, attack.what, *map(" → ".join, figures), verdict]


def _figures(outcome: Outcome) -> list[str]:
    seen = outcome.seen
    return [
        f"{seen.silence * 1e3:.0f}",
        f"{seen.silence_cpu * 1e3:.0f}",
        f"{(seen.peak_bytes - seen.idle_bytes) / 1e6:.0f}",
        f"{outcome.left / 1e6:.0f}",
        ", ".join(f"{answer} × {number}" for answer, number in outcome.answers.items()) or "none",
    ]
