"""The command line of the benchmark; `scripts/bench --help` shows the flags."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import attack_runs, figures, growth, limits, machine, peers, report, servers
from bench.attacks import ATTACKS
from bench.comparison import Comparison, compare
from bench.dialects import Dialect
from bench.load import Target
from bench.runs import LoadFailed


class Name(StrEnum):
    """The loads, as named on the command line."""

    memory = "memory"
    request = "request"
    request_50 = "request-50"
    request_new = "request-new"
    paced = "paced"
    burst = "burst"
    first_text = "first-text"
    conversation = "conversation"


class BuiltIn(StrEnum):
    """The targets that the benchmark starts itself."""

    proxy = "proxy"
    nginx = "nginx"


def main(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small loads and one round, to show that everything works.")
    ] = False,
    with_peers: Annotated[
        bool, typer.Option("--peers", help="Also measure TensorZero, Ferro and LiteLLM, installed from PyPI.")
    ] = False,
    with_growth: Annotated[
        bool, typer.Option("--growth", help="Measure instead how cost grows with history, state, streams and body.")
    ] = False,
    with_attacks: Annotated[
        bool, typer.Option("--attacks", help="Attack the proxy instead, and measure what that costs other clients.")
    ] = False,
    attack: Annotated[
        list[str] | None, typer.Option(help="Only attacks whose name begins like this; may be repeated.")
    ] = None,
    program: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, help="With --attacks: the .venv/bin/openai-dify-proxy of a checkout; may be repeated."
        ),
    ] = None,
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
    installed = peers.install_all(can_isolate=target is None) if with_peers else {}
    for_target, for_others = limits.processors()
    print(machine.describe(), flush=True)
    limits.pin(os.getpid(), for_others)  # the load generators inherit it
    if with_attacks or attack:
        chosen = [each for each in ATTACKS.values() if not attack or each.name.startswith(tuple(attack))]
        outcomes = attack_runs.run(
            chosen, for_target=for_target, for_others=for_others, programs=program or [None], seconds=2 if quick else 20
        )
        print(f"\n{attack_runs.table(outcomes)}")
        return
    with servers.upstream(upstream_port, processors=for_others) as upstream_url:
        if with_growth:
            sizes = growth.QUICK if quick else growth.FULL
            for table in growth.Growth(upstream_url, sizes, for_target=for_target).tables():
                print(f"\n{table}", flush=True)
            return
        wanted = [choice.value for choice in only or list(Name)]
        others = []
        if target is not None:
            others = [Target(name=name, url=target, dialect=Dialect.openai, pid=pid, model=model, key=key)]
        comparison = Comparison(
            plans={load: plan for load, plan in (figures.QUICK if quick else figures.FULL).items() if load in wanted},
            rounds=rounds or (1 if quick else 3),
            proxy=BuiltIn.proxy not in (without or []),
            nginx=BuiltIn.nginx not in (without or []),
            others=others,
            peers=installed,
        )
        measured = report.Measured()
        try:
            compare(comparison, measured, upstream_url, for_target=for_target, for_others=for_others)
        finally:
            if measured.rounds:
                print(f"\n{report.table(measured)}", flush=True)
    if json is not None:
        report.save(measured, json)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (LoadFailed, servers.NotStarted) as exc:
        Console(stderr=True).print(str(exc), style="red", markup=False)
        sys.exit(1)
