"""The figures of a soak, as a table and as plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from soak.clients import Outcomes
from soak.cluster import BUDGET
from soak.faults import Faults
from soak.upstreams import Report

PLANNED = ("reload", "replicas rolled")
"""Phases in which no answer may fail that the upstream did not fail."""

BREAKS = {
    *("connection_lost", "connection_refused", "stream_cut", "balancer_502", "balancer_504"),
    *("shutting_down", "worker_died"),
}


@dataclass
class Samples:
    """Measurements of each second: seconds since the epoch, and the resident bytes of all workers."""

    at: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


@dataclass
class Result:
    outcomes: Outcomes
    upstream: Report
    faults: Faults
    samples: Samples
    limit: int
    grace: float
    """SHUTDOWN_GRACE in seconds."""
    seconds: float

    @property
    def counters(self) -> dict[str, int]:
        """The figures that must be 0; README.md defines them."""
        outcomes = self.outcomes
        return {
            "lost": len(outcomes.lost),
            "doubled": sum(count - 1 for count in self.upstream.runs.values()),
            "crossed": len(outcomes.crossed) + len(self.upstream.crossed),
            "wrongly successful": len(outcomes.wrong) + len(self.faults.accepted_revoked),
            "over-admitted": len(self.upstream.over_admitted),
            "over-budget": self.faults.over_budget,
            "broken by a reload or roll": len(self.broken),
        }

    @property
    def broken(self) -> list[str]:
        return [
            f"{failure.kind}: {failure.code} after {failure.seconds:.1f} s in {self._moment(failure.at)}"
            for failure in self.outcomes.failures
            if failure.code in BREAKS
            and not failure.asked_for
            and failure.seconds < self.grace
            and self.faults.phase_at(failure.at) in PLANNED
        ]

    def _moment(self, at: float) -> str:
        return f"{self.faults.phase_at(at)} at {at - self.faults.phases[0].begin:.1f} s"

    @property
    def details(self) -> list[str]:
        """What is behind the counters."""
        outcomes = self.outcomes
        found = [*outcomes.lost, *outcomes.crossed, *self.upstream.crossed, *outcomes.wrong, *self.broken]
        found += [f"the revoked key: status {status}" for status in self.faults.accepted_revoked]
        found += [f"a run too many in {self._moment(at)}" for at in self.upstream.over_admitted]
        return [*found, *(f"{name}: {count} runs" for name, count in self.upstream.runs.items() if count > 1)]


def table(result: Result) -> str:
    outcomes = result.outcomes
    lines = [f"{'turns verified':28}{sum(outcomes.verified.values())}"]
    lines += [f"  {kind:26}{count}" for kind, count in sorted(outcomes.verified.items())]
    lines += [f"{name:28}{count}" for name, count in result.counters.items()]
    answers = result.faults.budget_answers
    lines.append(f"{'turns within a budget':28}{answers.count(200)} of {len(answers)}; the budget is {BUDGET}")
    times = [seconds for _, seconds in outcomes.first_text]
    lines.append(f"{'time to first text':28}p50 {_at(times, 0.5) * 1000:.0f} ms, p99 {_at(times, 0.99) * 1000:.0f} ms")
    lines.append(f"{'open runs in Dify':28}{result.upstream.peak} at most; the limit is {result.limit}")
    memory = [size / 2**20 for size in result.samples.memory]
    if memory:
        sizes = f"{memory[0]:.0f} MB at the start, {max(memory):.0f} at most, {memory[-1]:.0f} at the end"
        lines.append(f"{'memory of the workers':28}{sizes}")
    lines += ["", "Failures that the upstream was asked for:"]
    lines += _failures([failure.code for failure in outcomes.failures if failure.asked_for])
    lines += ["Other failures, by the phase in which they became known:"]
    lines += _failures(
        [f"{result.faults.phase_at(each.at)}: {each.code}" for each in outcomes.failures if not each.asked_for]
    )
    lines += [f"Skipped: {phase.name}: {phase.skipped}" for phase in result.faults.phases if phase.skipped]
    return "\n".join(lines)


def _failures(names: Sequence[str]) -> list[str]:
    return [f"  {name:42}{count}" for name, count in sorted(Counter(names).items())] or ["  none"]


def _at(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of all values is; 0 without values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


# Plots

WIDTH, HEIGHT, LEFT, GAP = 900, 200, 70, 50
COLOURS = ("#1565c0", "#c62828")


def plots(result: Result) -> str:
    """Return an SVG with the time to first text, the failures and the memory over time, and the phases behind them."""
    began = result.faults.phases[0].begin
    length = max(result.seconds, 1.0)
    buckets: dict[int, list[float]] = {}
    for moment, seconds in result.outcomes.first_text:
        buckets.setdefault(int(moment - began), []).append(seconds)
    first = [[(second, _at(times, share) * 1000) for second, times in sorted(buckets.items())] for share in (0.5, 0.99)]
    failed = Counter(int(each.at - began) for each in result.outcomes.failures if not each.asked_for)
    charts: list[tuple[str, Sequence[Sequence[tuple[float, float]]]]] = [
        ("Time to first text, p50 and p99, ms", first),
        ("Failures per second, without those that the upstream was asked for", [sorted(failed.items())]),
        (
            "Resident memory of the workers, MB",
            [[(at - began, size / 2**20) for at, size in zip(result.samples.at, result.samples.memory, strict=True)]],
        ),
    ]
    height = len(charts) * (HEIGHT + GAP) + GAP
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 20}" height="{height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, lines) in enumerate(charts):
        parts += _chart(result, title, lines, top=GAP + number * (HEIGHT + GAP), length=length)
    return "\n".join([*parts, "</svg>"])


def _chart(
    result: Result, title: str, lines: Sequence[Sequence[tuple[float, float]]], *, top: int, length: float
) -> list[str]:
    began = result.faults.phases[0].begin
    most = max((value for line in lines for _, value in line), default=0) or 1
    parts = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{escape(title)}</text>']
    for phase in result.faults.phases:
        if phase.name != "calm" and not phase.skipped:
            x, width = LEFT + (phase.begin - began) / length * WIDTH, (phase.end - phase.begin) / length * WIDTH
            parts.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" fill="#eeeeee"/>')
            parts.append(f'<text x="{x:.1f}" y="{top + HEIGHT + 14}" fill="#555555">{escape(phase.name)}</text>')
    parts.append(f'<path d="M{LEFT},{top}V{top + HEIGHT}H{LEFT + WIDTH}" fill="none" stroke="black"/>')
    parts.append(f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{most:.0f}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end">0</text>')
    for line, colour in zip(lines, COLOURS, strict=False):
        points = " ".join(
            f"{LEFT + second / length * WIDTH:.1f},{top + HEIGHT - value / most * HEIGHT:.1f}" for second, value in line
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    return parts
