"""Run the proxy under load and faults, check every answer, and print the figures of README.md."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bench.limits import allow_many_connections
from openai_dify_proxy.settings.values import MAX_CONCURRENT
from soak.clients import Outcomes, Plan
from soak.cluster import ROOT, Cluster, CommandFailed, NotStarted, cluster
from soak.faults import Faults, mount_small, unmount
from soak.questions import Fault
from soak.report import Result, Samples, plots, table

RATES: dict[Fault, float] = {"slow": 0.03, "rejected": 0.02, "full": 0.02, "midway": 0.02, "cut": 0.02}
LONG_RATES: dict[Fault, float] = {**RATES, "silence": 0.005}
"""A silent stream ends after 45 s, which a short run has no time for."""


def main(
    *,
    minutes: Annotated[float, typer.Option(help="Length of the run.")] = 10,
    streams: Annotated[int, typer.Option(help="Clients, most of which read a stream at any time.")] = 2000,
    events: Annotated[int, typer.Option(help="Events of a long answer, at most.")] = 10,
    gap: Annotated[int, typer.Option(help="Milliseconds between two events.")] = 1000,
    seed: Annotated[int, typer.Option(help="Another number makes other questions and faults.")] = 1,
    plot: Annotated[Path, typer.Option(help="Where the plots are written.")] = Path("soak.svg"),
    keep: Annotated[Path | None, typer.Option(help="A new directory, in which the logs of all parts stay.")] = None,
) -> None:
    """Run the soak; the exit code is 1 if a figure that must be 0 is not."""
    allow_many_connections()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the parts, too
    # Fewer slots than clients: some turns always wait.
    limit = max(2, min(streams * 3 // 4, MAX_CONCURRENT))
    grace = events * gap // 1000 * 3 + 10
    with _directory(keep) as directory:
        pictures = directory / "pictures"
        try:
            with cluster(directory, limit=limit, grace=grace) as running:
                plan = Plan(
                    host="127.0.0.1",
                    port=running.port,
                    keys=running.keys,
                    clients=streams,
                    events=events,
                    gap=gap,
                    rates=RATES if minutes < 3 else LONG_RATES,
                    seed=seed,
                )
                result = asyncio.run(_run(running, plan, seconds=minutes * 60, limit=limit, grace=grace))
        finally:
            unmount(pictures)
    print(table(result))
    plot.write_text(plots(result), encoding="utf-8")
    print(f"\nPlots: {plot}")
    if any(result.counters.values()):
        print("\n".join(["", "Behind the counters:", *result.details[:50]]))
        sys.exit(1)


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


async def _run(running: Cluster, plan: Plan, *, seconds: float, limit: int, grace: int) -> Result:
    small_disk = mount_small(running.pictures)
    clients = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "soak.clients",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert clients.stdin is not None
    clients.stdin.write(msgspec.json.encode(plan) + b"\n")
    faults = Faults(running, seconds, small_disk)
    samples = Samples()
    sampling = asyncio.create_task(_sample(running, samples))
    began = time.monotonic()
    try:
        await faults.run()
        clients.stdin.close()  # ends the load
        written, _ = await clients.communicate()
    finally:
        sampling.cancel()
        if clients.returncode is None:
            clients.kill()
            await clients.wait()
    outcomes = msgspec.json.decode(written, type=Outcomes)
    return Result(outcomes, await running.upstreams.report(), faults, samples, limit, grace, time.monotonic() - began)


async def _sample(running: Cluster, samples: Samples) -> None:
    while True:
        samples.at.append(time.time())
        samples.memory.append(sum(replica.memory for replica in running.replicas))
        await asyncio.sleep(1)


if __name__ == "__main__":
    try:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(main)
        app()
    except (NotStarted, CommandFailed) as problem:
        sys.exit(str(problem))
