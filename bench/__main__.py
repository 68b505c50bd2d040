"""The command line of the benchmark; `scripts/bench --help` shows the flags."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from bench import figures, limits, report, servers
from bench.dialects import Dialect
from bench.figures import LoadName, LoadPlan, StateName
from bench.load import Load, Result, Target
from bench.report import Measured


class Name(StrEnum):
    """The loads, as named on the command line."""

    memory = "memory"
    request = "request"
    paced = "paced"
    burst = "burst"
    first_text = "first-text"
    conversation = "conversation"


class BuiltIn(StrEnum):
    """The targets that the benchmark starts itself."""

    proxy = "proxy"
    nginx = "nginx"


log = Console(stderr=True)


class LoadFailed(Exception):
    """The load generator failed; the message holds its standard error."""


def put_load(plan: LoadPlan, target: Target, upstream_url: str) -> Result:
    """Run the load generator once in its own process, which inherits the affinity to the other processors."""
    load = Load(
        kind=plan.kind,
        target=target,
        upstream_url=upstream_url,
        scenario=plan.scenario,
        stream=plan.stream,
        connections=plan.connections,
        requests=plan.requests,
    )
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(command, cwd=servers.ROOT, input=msgspec.json.encode(load), capture_output=True, check=False)
    if done.returncode:
        raise LoadFailed(f"{plan.kind} on {target.name} failed:\n{done.stderr.decode(errors='replace')[-3000:]}")
    return msgspec.json.decode(done.stdout, type=Result)


def measure(
    targets: list[Target],
    states: dict[StateName, Target],
    plans: dict[LoadName, LoadPlan],
    upstream_url: str,
    rounds: int,
) -> Measured:
    """Run every load on every target in turn, `rounds` times.

    Memory is measured in the first round only, before other loads make the process grow. The load `conversation` runs
    on the `states`, which are proxies with different state backends.
    """
    measured = Measured()
    direct = Target(name="upstream", url=upstream_url, dialect=Dialect.dify)
    warm_up = LoadPlan("loop", figures.FULL["first-text"].scenario, stream=False, connections=1, requests=1)
    for target in [*targets, *states.values()]:
        put_load(warm_up, target, upstream_url)
    for number in range(rounds):
        for name, plan in plans.items():
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
                measured.add(target.name, figures.read(name, put_load(plan, target, upstream_url), direct_result))
    return measured


def start_with_states(
    running: ExitStack, upstream_url: str, valkey_url: str, processors: set[int]
) -> dict[StateName, Target]:
    """Start a proxy for each state backend; `running` stops them."""
    urls: dict[StateName, str | None] = {"memory": "memory://", "SQLite": None, "Valkey": valkey_url}
    started: dict[StateName, Target] = {}
    for state, state_url in urls.items():
        proxy = servers.proxy(upstream_url, processors=processors, state_url=state_url)
        url, pid = running.enter_context(proxy)
        started[state] = Target(name=f"{report.OWN} ({state})", url=url, dialect=Dialect.openai, pid=pid)
    return started


def main(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small loads and one round, to show that everything works.")
    ] = False,
    only: Annotated[list[Name] | None, typer.Option(help="Run only this load; may be repeated.")] = None,
    without: Annotated[
        list[BuiltIn] | None, typer.Option(help="Leave out the proxy or nginx; may be repeated.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of all loads. Default: 3, with --quick 1.")] = None,
    upstream_port: Annotated[int, typer.Option(help="Port of the scripted Dify; 0 selects a free one.")] = 0,
    target: Annotated[str | None, typer.Option(help="Base URL of another OpenAI-compatible server, with /v1.")] = None,
    pid: Annotated[
        int | None,
        typer.Option(help="Process id of --target; without it, only the time to the first text is measured."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model to request from --target.")] = "dify",
    key: Annotated[str, typer.Option(help="API key for --target.")] = "bench",
    name: Annotated[str, typer.Option(help="Name of --target in the table.")] = "other",
    json: Annotated[Path | None, typer.Option(help="Also write the figures of all rounds to this file.")] = None,
) -> None:
    """Measure the proxy against nginx, which passes the same bytes through, and against any other server."""
    limits.allow_many_connections()
    for_target, for_others = limits.processors()
    limits.pin(os.getpid(), for_others)  # the load generator inherits it
    wanted = [choice.value for choice in only or list(Name)]
    plans = {load: plan for load, plan in (figures.QUICK if quick else figures.FULL).items() if load in wanted}
    with ExitStack() as running:
        upstream_url = running.enter_context(servers.upstream(upstream_port, processors=for_others))
        targets = []
        states: dict[StateName, Target] = {}
        if BuiltIn.proxy not in (without or []):
            url, own_pid = running.enter_context(servers.proxy(upstream_url, processors=for_target))
            targets.append(Target(name=report.OWN, url=url, dialect=Dialect.openai, pid=own_pid))
            if "conversation" in plans:
                valkey_url = running.enter_context(servers.valkey(processors=for_others))
                states = start_with_states(running, upstream_url, valkey_url, for_target)
        if target is not None:
            targets.append(Target(name=name, url=target, dialect=Dialect.openai, pid=pid, model=model, key=key))
        if BuiltIn.nginx not in (without or []):
            url, own_pid = running.enter_context(servers.nginx(upstream_url, processors=for_target))
            targets.append(Target(name=report.LIMIT, url=url, dialect=Dialect.dify, pid=own_pid))
        log.print(f"upstream: {upstream_url}")
        for each in [*targets, *states.values()]:
            log.print(f"{each.name}: {each.url}, pid {each.pid}")
        measured = measure(targets, states, plans, upstream_url, rounds or (1 if quick else 3))
    names = [each.name for each in targets]
    report.show(measured, names)
    if json is not None:
        report.save(measured, names, json)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (LoadFailed, servers.NotStarted) as exc:
        log.print(str(exc), style="red", markup=False)
        sys.exit(1)
