"""Runs the same loads on the proxy, nginx and other servers, in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import figures, peers, report, servers
from bench.dialects import Dialect
from bench.figures import LoadName, LoadPlan, StateName
from bench.load import Target
from bench.peers import Peer
from bench.report import Measured
from bench.runs import LoadFailed, put_load

log = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The loads and servers to compare. `others` are running already."""

    plans: Mapping[LoadName, LoadPlan]
    rounds: int
    proxy: bool
    nginx: bool
    others: Sequence[Target]
    peers: Mapping[Peer, Path]
    """The peers to start, with the directories of their programs."""


def compare(
    comparison: Comparison, measured: Measured, upstream_url: str, *, for_target: set[int], for_others: set[int]
) -> None:
    """Start the servers, and run every load on each; add the figures to `measured`. Raises LoadFailed."""
    with ExitStack() as running:
        targets = [*comparison.others]
        states: dict[StateName, Target] = {}
        if comparison.proxy:
            url, pid = running.enter_context(servers.proxy(upstream_url, processors=for_target))
            targets.append(Target(name=report.OWN, url=url, dialect=Dialect.openai, pid=pid))
            if "conversation" in comparison.plans:
                valkey_url = running.enter_context(servers.valkey(processors=for_others))
                states = _start_with_states(running, upstream_url, valkey_url, for_target)
        targets += _start_peers(running, comparison.peers, upstream_url, for_target)
        if comparison.nginx:
            url, pid = running.enter_context(servers.nginx(upstream_url, processors=for_target))
            targets.append(Target(name=report.LIMIT, url=url, dialect=Dialect.dify, pid=pid))
        for each in [*targets, *states.values()]:
            log.print(f"{each.name}: {each.url}, pid {each.pid}")
        _measure(measured, targets, states, comparison, upstream_url)


def _measure(
    measured: Measured,
    targets: Sequence[Target],
    states: Mapping[StateName, Target],
    comparison: Comparison,
    upstream_url: str,
) -> None:
    """Run every load on every target in turn, once in each round.

    Memory is measured in the first round only, before other loads make the process grow. The load `conversation` runs
    on the `states`, which are proxies with different state backends. Raises LoadFailed, unless a peer failed.
    """
    rounds = comparison.rounds
    direct = Target(name="upstream", url=upstream_url, dialect=Dialect.dify)
    for target in [*targets, *states.values()]:
        put_load(figures.WARM_UP, target, upstream_url)
    for number in range(rounds):
        for name, plan in comparison.plans.items():
            if (name == "memory" and number > 0) or (name == "conversation" and not states):
                continue
            log.print(f"round {number + 1} of {rounds}: {name}", style="dim")
            if name == "conversation":
                results = {state: put_load(plan, target, upstream_url) for state, target in states.items()}
                measured.add(report.OWN, figures.read_states(results))
                continue
            direct_result = put_load(plan, direct, upstream_url) if name == "first-text" else None
            for target in targets:
                if target.pid is None and name != "first-text":
                    continue
                try:
                    result = put_load(plan, target, upstream_url)
                except LoadFailed as exc:
                    if not target.peer:
                        raise
                    log.print(str(exc), style="yellow", markup=False)
                    continue
                measured.add(target.name, figures.read(name, result, direct_result))


def _start_with_states(
    running: ExitStack, upstream_url: str, valkey_url: str, processors: set[int]
) -> dict[StateName, Target]:
    """Start a proxy for each state backend; `running` stops them."""
    settings: dict[StateName, dict[str, str]] = {
        "memory": {"STATE_URL": "memory://"},
        "SQLite": {},
        "Valkey": {"STATE_URL": valkey_url},
    }
    started: dict[StateName, Target] = {}
    for state, chosen in settings.items():
        proxy = servers.proxy(upstream_url, processors=processors, settings=chosen)
        url, pid = running.enter_context(proxy)
        started[state] = Target(name=f"{report.OWN} ({state})", url=url, dialect=Dialect.openai, pid=pid)
    return started


def _start_peers(
    running: ExitStack, installed: Mapping[Peer, Path], upstream_url: str, processors: set[int]
) -> list[Target]:
    """Start the peers that start; `running` stops them."""
    started = []
    for peer, programs in installed.items():
        try:
            url, pid = running.enter_context(peers.start(peer, programs, upstream_url, processors))
        except servers.NotStarted as exc:
            peers.skip(peer, str(exc))
            continue
        started.append(
            Target(
                name=peer.name, url=url, dialect=Dialect.openai, pid=pid, model=peer.model, share=peer.share, peer=True
            )
        )
    return started
