"""The faults of a soak, one after the other, with calm between them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench import client
from soak.cluster import BUDGET, KEY, REVOKED, Cluster, Replica
from soak.questions import Question

CHAT = "/v1/chat/completions"

BUDGET_CLIENTS = 1_000_000
"""The number of the first client that spends the budget; no other client has so high a number."""

DISK = 16 * 1024 * 1024
"""The size of the small file system for pictures, in bytes."""

REVOCATION = 1.5
"""Seconds after which no replica may accept a revoked key; they promise one second."""


SPENDERS = 5
"""Clients that spend the budget at the same time. Each has one turn in flight, so this is the overshoot allowed."""

ATTEMPTS = 12
"""Turns that each of them tries; together three times the budget."""


@dataclass
class Phase:
    """A part of the run. Times are in seconds since the epoch; ``skipped`` is the reason if nothing happened."""

    name: str
    begin: float
    end: float = 0.0
    skipped: str = ""


@dataclass
class Faults:
    """Applies the faults. ``revoked_answers`` has the status of each request with the revoked key, and
    ``budget_answers`` that of each request with the key that has a budget."""

    cluster: Cluster
    seconds: float
    """The planned length of the run."""
    small_disk: bool
    """Whether the pictures lie on a small file system of their own."""
    phases: list[Phase] = field(default_factory=list)
    revoked_answers: list[int] = field(default_factory=list)
    budget_answers: list[int] = field(default_factory=list)

    async def run(self) -> None:
        began = time.time()
        plan: list[tuple[float, str, Callable[[], Awaitable[str]]]] = [
            (0.12, "worker killed", self._kill_worker),
            (0.18, "budget spent", self._spend_budget),
            (0.24, "Valkey killed", self._restart_valkey),
            (0.34, "disk full", self._fill_disk),
            (0.46, "Dify away", self._lose_dify),
            (0.54, "key revoked", self._revoke_key),
            (0.60, "reload", self._reload),
            (0.70, "replicas rolled", self._roll),
        ]
        self.phases.append(Phase("calm", began))
        for share, name, fault in plan:
            await asyncio.sleep(began + share * self.seconds - time.time())
            self._enter(name)
            self.phases[-1].skipped = await fault()
            await asyncio.sleep(0.04 * self.seconds)  # for the consequences
            self._enter("calm")
        await asyncio.sleep(began + self.seconds - time.time())
        self.phases[-1].end = time.time()

    def _enter(self, name: str) -> None:
        now = time.time()
        print(f"{now - self.phases[0].begin:6.1f} s  {name}", file=sys.stderr, flush=True)
        self.phases[-1].end = now
        self.phases.append(Phase(name, now))

    def phase_at(self, moment: float) -> str:
        return next((phase.name for phase in reversed(self.phases) if phase.begin <= moment), "calm")

    async def _kill_worker(self) -> str:
        self.cluster.replicas[0].workers[0].kill()
        return ""

    async def _restart_valkey(self) -> str:
        await asyncio.to_thread(self.cluster.valkey.restart)
        return ""

    async def _fill_disk(self) -> str:
        if not self.small_disk:
            return "no small file system could be mounted; run as root"
        filler = self.cluster.pictures / "filler"
        await asyncio.to_thread(_fill, filler)
        await asyncio.sleep(0.06 * self.seconds)
        filler.unlink()
        return ""

    async def _lose_dify(self) -> str:
        away = 0.05 * self.seconds
        await self.cluster.upstreams.go_away(away)
        await asyncio.sleep(away)
        return ""

    async def _revoke_key(self) -> str:
        """Revoke a key, and then try to use it at every replica."""
        await asyncio.to_thread(self.cluster.replicas[0].command, "keys", "revoke", "--yes", REVOKED)
        await asyncio.sleep(REVOCATION)
        for replica in self.cluster.replicas * 10:
            self.revoked_answers.append(await _status(replica, "SOAK", self.cluster.keys[1]))
        return ""

    @property
    def accepted_revoked(self) -> list[int]:
        """The answers to the revoked key other than refusals; 503 is one of a replica that cannot read its state."""
        return [status for status in self.revoked_answers if status not in (401, 503)]

    async def _spend_budget(self) -> str:
        """Try more turns than the budget has, at all replicas at once."""
        await asyncio.gather(*map(self._spend, range(SPENDERS)))
        return ""

    async def _spend(self, number: int) -> None:
        replicas = self.cluster.replicas
        for attempt in range(ATTEMPTS):
            question = Question(f"c{BUDGET_CLIENTS + number}-{attempt}", events=2, gap=10)
            replica = replicas[(number + attempt) % len(replicas)]
            self.budget_answers.append(await _status(replica, question.text, self.cluster.budgeted))

    @property
    def over_budget(self) -> int:
        """The turns beyond the budget and one in flight for each client."""
        return max(0, self.budget_answers.count(200) - BUDGET - SPENDERS)

    async def _reload(self) -> str:
        for replica in self.cluster.replicas:
            replica.configure(API_KEYS=KEY, HEARTBEAT_INTERVAL="11s")
            await asyncio.to_thread(replica.command, "reload")
        return ""

    async def _roll(self) -> str:
        for replica in self.cluster.replicas:
            await asyncio.to_thread(replica.stop)
            await asyncio.to_thread(replica.start)
        return ""


async def _status(replica: Replica, text: str, key: str) -> int:
    """Ask a question and return the status of the answer."""
    body = msgspec.json.encode({"model": "soak", "messages": [{"role": "user", "content": text}]})
    connection = await client.connect("127.0.0.1", replica.port)
    try:
        return (await connection.ask(client.request("POST", "localhost", CHAT, body=body, key=key))).status
    finally:
        connection.close()


def mount_small(directory: Path) -> bool:
    """Mount a small file system at ``directory``. Return whether that is permitted here."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        return False
    return subprocess.run([mount, "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", directory], check=False).returncode == 0


def unmount(directory: Path) -> None:
    if os.path.ismount(directory):
        subprocess.run(["umount", "--lazy", directory], check=True)


def _fill(filler: Path) -> None:
    """Write until there is no space."""
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(65536)):
                pass
        except OSError:
            pass  # the disk is full, as intended
