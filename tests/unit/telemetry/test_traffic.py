"""The traffic of the console: bounded, in steps, without probes."""

from __future__ import annotations

from array import array

import pytest

from openai_dify_proxy.errors import RateLimited
from openai_dify_proxy.telemetry.records import RequestRecord
from openai_dify_proxy.telemetry.traffic import (
    MAX_SAMPLES,
    RECENT,
    STEP_SECONDS,
    STEPS,
    Traffic,
    percentile,
)


def record(at: float, **more: object) -> RequestRecord:
    """Return the record of a request that began at ``at`` and took no time."""
    made = RequestRecord(route="/v1/chat/completions", method="POST", status=200, **more)  # type: ignore[arg-type]
    made.began_at = at
    made.started = made.ended = 5.0
    return made


def test_steps_count_requests_turns_and_errors() -> None:
    traffic = Traffic(frozenset())
    traffic(record(100, app="support", first_text=5.5))
    traffic(record(109.9))
    traffic(record(110, app="support", error=RateLimited("busy")))
    traffic(record(110, kind="turn", app="support"))
    first, second = traffic.steps()
    assert (first.at, first.requests, first.turns, first.errors) == (100, 2, 1, {})
    assert list(first.first_texts) == [0.5]
    assert (second.at, second.requests, second.turns, second.errors) == (110, 1, 2, {"RateLimited": 1})


def test_probes_do_not_count() -> None:
    traffic = Traffic(frozenset({"/v1/chat/completions"}))
    traffic(record(100))
    assert (list(traffic.steps()), traffic.recent()) == ([], [])


def test_everything_is_bounded() -> None:
    traffic = Traffic(frozenset())
    for number in range(STEPS + 10):
        traffic(record(number * STEP_SECONDS, id=str(number)))
    assert len(list(traffic.steps())) == STEPS
    assert traffic.recent()[0].id == str(STEPS + 9)
    for _ in range(RECENT + MAX_SAMPLES + 10):
        traffic(record(10**6, first_text=5.1))
    *_, last = traffic.steps()
    assert (len(last.first_texts), len(traffic.recent())) == (MAX_SAMPLES, RECENT)


def test_a_clock_that_goes_back_stays_in_the_last_step() -> None:
    traffic = Traffic(frozenset())
    traffic(record(200))
    traffic(record(100))
    (step,) = traffic.steps()
    assert (step.at, step.requests) == (200, 2)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 3.0), (0.99, 4.0), (0.0, 1.0), (1.0, 4.0)])
def test_percentiles_are_by_nearest_rank(share: float, expected: float) -> None:
    assert percentile(array("f", [4, 1, 3, 2]), share) == expected
    assert percentile(array("f"), share) is None
