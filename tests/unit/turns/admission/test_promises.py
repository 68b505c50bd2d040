"""Promises behind ``Retry-After``."""

from __future__ import annotations

import pytest

from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.promises import Promises, TurnDurations

ANNA, BERT = Line("key-1", "anna"), Line("key-1", "bert")


def test_each_promise_is_for_a_later_place() -> None:
    promises = Promises(10)
    assert [promises.make(ANNA, 100.0, 1.5) for _ in range(4)] == [2, 3, 5, 6]
    assert len(promises) == 4


@pytest.mark.parametrize(("seconds", "shown"), [(0.01, 1), (1.0, 1), (1.1, 2), (59.5, 60), (600.0, 60)])
def test_whole_seconds_that_sdks_accept(seconds: float, shown: int) -> None:
    assert Promises(10).make(ANNA, 5.0, seconds) == shown


def test_a_promise_is_redeemed_once_and_not_before_its_time() -> None:
    promises = Promises(10)
    assert promises.make(ANNA, 100.0, 5.0) == 5
    assert not promises.redeem(ANNA, 104.9)
    assert not promises.redeem(BERT, 105.0)
    assert not promises.is_due(BERT, 105.0)
    assert promises.is_due(ANNA, 105.0)
    assert promises.redeem(ANNA, 105.0)
    assert not promises.redeem(ANNA, 105.0)
    assert len(promises) == 0


def test_promises_of_one_end_user_come_due_one_after_the_other() -> None:
    promises = Promises(10)
    for _ in range(3):
        promises.make(ANNA, 0.0, 2.0)
    promises.make(BERT, 0.0, 2.0)
    assert [promises.redeem(ANNA, now) for now in (2.0, 2.0, 4.0, 6.0, 8.0)] == [True, False, True, True, False]
    assert promises.redeem(BERT, 8.0)


def test_promises_expire() -> None:
    promises = Promises(10)
    promises.make(ANNA, 0.0, 2.0)
    assert not promises.redeem(ANNA, 32.1)
    assert len(promises) == 0


def test_number_of_promises_is_bounded() -> None:
    promises = Promises(3)
    assert [promises.make(ANNA, 0.0, 1.0) for _ in range(1000)][:5] == [1, 2, 3, 4, 4]
    assert len(promises) == 3


@pytest.mark.parametrize(
    ("durations", "limit", "seconds"),
    [([], 8, 1.25), ([4.0], 8, 0.5), ([4.0, 4.0], 1, 4.0), ([4.0, 9.0], 1, 5.0), ([4.0], 0, 4.0)],
)
def test_seconds_until_a_slot_is_free(durations: list[float], limit: int, seconds: float) -> None:
    average = TurnDurations()
    for duration in durations:
        average.add(duration)
    assert average.seconds_per_slot(limit) == seconds
