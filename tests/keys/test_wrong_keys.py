from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from openai_dify_proxy.errors import TooManyWrongKeys
from openai_dify_proxy.keys.wrong_keys import FORGET_SECONDS, FREE, LONGEST_PAUSE, MAX_ADDRESSES, WrongKeys


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def wrong(time: Time) -> WrongKeys:
    return WrongKeys(time)


@pytest.fixture
def guesses() -> Iterator[str]:
    return map(str, count())


def pause(wrong: WrongKeys, address: str, guesses: Iterator[str]) -> float:
    with pytest.raises(TooManyWrongKeys) as refused:
        wrong.count(address, next(guesses))
    assert refused.value.retry_after is not None
    return refused.value.retry_after


def test_guesses_get_pauses_that_double_up_to_a_minute(wrong: WrongKeys, time: Time, guesses: Iterator[str]) -> None:
    for _ in range(FREE):
        wrong.count("192.0.2.1", next(guesses))
    pauses = []
    for _ in range(9):
        wrong.count("192.0.2.1", next(guesses))
        pauses.append(pause(wrong, "192.0.2.1", guesses))
        time.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_a_client_that_repeats_one_wrong_key_gets_no_pause(wrong: WrongKeys, guesses: Iterator[str]) -> None:
    wrong.count("192.0.2.1", "old key")
    for _ in range(1000):
        wrong.count("192.0.2.1", "old key")
    for _ in range(FREE):
        wrong.count("192.0.2.1", next(guesses))
    pause(wrong, "192.0.2.1", guesses)
    wrong.count("192.0.2.1", "old key")


def test_addresses_are_counted_apart_and_an_ipv6_network_together(wrong: WrongKeys, guesses: Iterator[str]) -> None:
    for number in range(FREE + 1):
        wrong.count(f"2001:db8::{number:x}", next(guesses))
        wrong.count(f"::ffff:192.0.2.{number}", next(guesses))
    assert pause(wrong, "2001:db8::ffff%eth0", guesses) == 1
    wrong.count("2001:db8:0:1::1", next(guesses))
    wrong.count("192.0.2.1", next(guesses))
    wrong.count("not:an:address", next(guesses))


def test_an_address_is_forgotten_after_a_while(wrong: WrongKeys, time: Time, guesses: Iterator[str]) -> None:
    for _ in range(FREE + 1):
        wrong.count("", next(guesses))
    pause(wrong, "", guesses)
    time.now += FORGET_SECONDS + 1
    for _ in range(FREE):
        wrong.count("", next(guesses))


def test_the_table_is_bounded(wrong: WrongKeys) -> None:
    for number in range(MAX_ADDRESSES + 100):
        wrong.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "guess")
    assert len(wrong) == MAX_ADDRESSES
