"""Runs the load generators, each in its own process, which inherits the affinity to the other processors."""

from __future__ import annotations

import subprocess
import sys
from typing import TypeVar

import msgspec

from bench import servers
from bench.figures import LoadPlan
from bench.growth_load import Grown, GrowthLoad
from bench.load import Load, Result, Target

ResultType = TypeVar("ResultType", Result, Grown)


class LoadFailed(Exception):
    """A load generator failed; the message holds its standard error."""


def put_load(plan: LoadPlan, target: Target, upstream_url: str) -> Result:
    """Run one load on a target. Raises LoadFailed."""
    # A chat has `requests` turns; dividing them would change the figure.
    requests = plan.requests if plan.kind == "chats" else max(8, plan.requests // target.share)
    load = Load(
        kind=plan.kind,
        target=target,
        upstream_url=upstream_url,
        scenario=plan.scenario,
        stream=plan.stream,
        connections=max(1, plan.connections // target.share),
        requests=requests,
        reuse=plan.reuse,
    )
    return _run("bench.load", load, Result)


def put_growth_load(load: GrowthLoad) -> Grown:
    """Run one load of one size. Raises LoadFailed."""
    return _run("bench.growth_load", load, Grown)


def _run(module: str, load: Load | GrowthLoad, result: type[ResultType]) -> ResultType:
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, cwd=servers.ROOT, input=msgspec.json.encode(load), capture_output=True, check=False)
    if done.returncode:
        raise LoadFailed(f"{load.kind} on {load.target.name} failed:\n{done.stderr.decode(errors='replace')[-3000:]}")
    return msgspec.json.decode(done.stdout, type=result)
