"""What the rest of a run has used after a pause, when Dify counts the whole run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.events import Usage
from openai_dify_proxy.translate.dify.usage import UsageCounter, add_usage, subtract_usage
from openai_dify_proxy.translate.prices import to_nanos
from openai_dify_proxy.wire.dify import UsageData

BEFORE = Usage(10, 5, 15, "0.0001", "USD")

counts = st.integers(0, 10**6)
prices = st.none() | st.integers(0, 10**9).map(lambda number: f"{number // 10**7}.{number % 10**7:07}")
usages = st.builds(
    lambda prompt, completion, price: Usage(prompt, completion, prompt + completion, price, price and "USD"),
    counts,
    counts,
    prices,
)


def message(prompt: int, completion: int, price: str) -> UsageData:
    return UsageData(prompt_tokens=prompt, completion_tokens=completion, total_price=price, currency="USD")


@given(usages, usages)
def test_the_rest_is_what_was_added(before: Usage, rest: Usage) -> None:
    found = subtract_usage(add_usage(before, rest), before)
    assert (found.prompt_tokens, found.completion_tokens) == (rest.prompt_tokens, rest.completion_tokens)
    assert sum(to_nanos(price) or 0 for _, price in found.costs) == sum(to_nanos(price) or 0 for _, price in rest.costs)


@pytest.mark.parametrize(
    "whole",
    [
        Usage(3, 5, 15, "0.0002", "USD"),
        Usage(10, 5, 15, "0.00005", "USD"),
        Usage(10, 5, 15, "0.0002", "EUR"),
        Usage(10, 5, 15, "free", "USD"),
    ],
)
def test_a_count_that_cannot_include_the_earlier_one_is_that_of_the_rest(whole: Usage) -> None:
    assert subtract_usage(whole, BEFORE) is whole


def test_several_currencies() -> None:
    whole = Usage(20, 10, 30, prices=(("USD", "0.0003"), ("RMB", "1")))
    assert dict(subtract_usage(whole, BEFORE).costs) == {"USD": "0.0002", "RMB": "1"}


def test_the_totals_of_a_run_include_what_was_before_its_pause() -> None:
    counter = UsageCounter(BEFORE)
    assert (counter.total, counter.run_total) == (None, BEFORE)
    counter.read_message_end(message(30, 6, "0.0004"))
    total = counter.total
    assert total is not None
    assert (total.prompt_tokens, total.completion_tokens, total.price) == (20, 1, "0.0003")
    assert counter.run_total == Usage(30, 6, 36, "0.0004", "USD")


def test_the_nodes_of_the_rest_do_not_include_what_was_before() -> None:
    counter = UsageCounter(BEFORE)
    counter.add_node(message(7, 1, "0.00001"))
    assert counter.total == Usage(7, 1, 8, "0.00001", "USD")
    assert counter.run_total == Usage(17, 6, 23, "0.00011", "USD")


@pytest.mark.parametrize(("whole", "rest"), [(20, 5), (15, 0), (4, 4)])
def test_a_run_that_counts_tokens_only(whole: int, rest: int) -> None:
    counter = UsageCounter(BEFORE)
    counter.read_run_total(whole, complete=True)
    assert counter.total == Usage(completion_tokens=rest, total_tokens=rest)
