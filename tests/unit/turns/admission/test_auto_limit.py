"""The control law of ``auto``, alone and against Difys of several sizes."""

from __future__ import annotations

import pytest

from openai_dify_proxy.turns.admission.auto_limit import AutoLimit

FULL = 8
"""Where ``auto`` starts, and its lowest limit: two less than the ten connections of the smallest Dify."""


def grown(limit: int) -> AutoLimit:
    law = AutoLimit()
    while law.limit < limit:
        law.probed(0.0, 3)
    return law


@pytest.mark.parametrize(
    ("ages", "answering", "waiting", "probes"),
    [
        ([], 8, 1, True),
        ([], 8, 0, False),  # no turn waits
        ([], 7, 1, False),  # not full
        ([0.1], 7, 1, False),  # full, but one head is to come
        ([2.9], 8, 1, True),  # another process has found a limit of 9, which was too high
        ([3.0], 8, 1, False),  # late
    ],
)
def test_probes_while_full_and_prompt(ages: list[float], answering: int, waiting: int, probes: bool) -> None:
    law = AutoLimit()
    assert law.observe(100.0, [100.0 - age for age in ages], answering=answering, waiting=waiting) is probes
    assert law.limit == FULL


@pytest.mark.parametrize(
    ("limit", "answered", "then"),
    [(8, 3, 9), (8, 2, 8), (8, 1, 8), (8, 0, 8), (20, 3, 21), (20, 2, 20), (20, 1, 19), (20, 0, 18), (9, 0, 8)],
)
def test_limit_after_a_probe(limit: int, answered: int, then: int) -> None:
    """Each unanswered probe is a connection that Dify lacks for two control calls."""
    law = grown(limit)
    law.probed(1.0, answered)
    assert law.limit == then


@pytest.mark.parametrize(
    ("limit", "in_use", "ages", "then"),
    [
        (20, 20, [2.9], 20),
        (20, 20, [3.0], 17),  # the Dify serves 19, two of them for control calls
        (20, 20, [5.0, 4.0, 1.0], 16),
        (20, 9, [3.0], 8),
        (20, 20, [3.0] * 20, 8),
        (8, 8, [60.0], 8),
    ],
)
def test_late_heads_lower_the_limit(limit: int, in_use: int, ages: list[float], then: int) -> None:
    law = grown(limit)
    assert not law.observe(100.0, [100.0 - age for age in ages], answering=in_use - len(ages), waiting=5)
    assert law.limit == then


def test_one_late_head_lowers_the_limit_once() -> None:
    law = grown(40)
    for now in range(100, 110):
        law.observe(float(now), [97.0], answering=39 - (now - 100), waiting=5)
    assert law.limit == 37


def test_pauses_in_growth_double() -> None:
    law = AutoLimit()
    now, pauses = 0.0, []
    for _ in range(8):
        law.probed(now, 2)
        began = now
        while not law.observe(now, [], answering=8, waiting=1):
            now += 1.0
        pauses.append(now - began)
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]
    law.probed(now, 3)
    assert law.observe(now, [], answering=9, waiting=1)
    law.probed(now, 2)
    assert not law.observe(now + 14, [], answering=9, waiting=1)
    assert law.observe(now + 15, [], answering=9, waiting=1)


def test_adopts_the_limit_of_another_process() -> None:
    law = AutoLimit()
    law.adopt(31)
    assert law.limit == 31
    law.adopt(3)
    assert law.limit == FULL


@pytest.mark.parametrize("connections", [10, 11, 12, 20, 40])
def test_finds_the_size_of_a_dify_without_filling_it(connections: int) -> None:
    """The simulated Dify serves ``connections`` at a time, and so many of three probes as the turns leave free."""
    law = AutoLimit()
    now = 0.0
    for _ in range(3 * connections):
        in_use = law.limit  # always full, and many wait
        assert in_use <= connections - 2
        now += 0.05
        if law.observe(now, [], answering=in_use, waiting=100):
            law.probed(now, min(3, connections - in_use))
    assert law.limit == connections - 2


def test_follows_a_dify_that_shrinks() -> None:
    """Of forty turns, those beyond ten get no response head."""
    law = grown(38)
    assert not law.observe(100.0, [96.0] * 28, answering=10, waiting=10)
    assert law.limit == FULL


def test_the_highest_limit() -> None:
    law = grown(1000)
    assert law.observe(1.0, [], answering=1000, waiting=1) is False
    law.probed(1.0, 3)
    assert law.limit == 1000
    law.adopt(2**40)
    assert law.limit == 1000
