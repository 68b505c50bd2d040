"""The owners that lose entries of a full state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.state.eviction import shares

sizes = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 50), max_size=12)


def test_the_largest_loses_first() -> None:
    assert shares({"ann": 3, "bob": 10, "carl": 5}, 4) == {"bob": 4}


def test_the_largest_become_equal() -> None:
    assert shares({"ann": 3, "bob": 10, "carl": 7, "dora": 1}, 7) == {"bob": 5, "carl": 2}
    assert shares({"ann": 8, "bob": 8}, 3) == {"ann": 2, "bob": 1}


def test_only_some_owners_may_lose() -> None:
    assert shares({"ann": 4, "bob": 4, "carl": 4}, 6, owners=2) == {"ann": 3, "bob": 3}


@given(sizes, st.integers(1, 700))
def test_together_they_lose_the_excess_and_none_falls_below_a_smaller_one(held: dict[str, int], excess: int) -> None:
    lost = shares(held, excess)
    assert sum(lost.values()) == min(excess, sum(held.values()))
    left = {owner: size - lost.get(owner, 0) for owner, size in held.items()}
    assert all(size >= 0 for size in left.values())
    losers = [left[owner] for owner in lost]
    if losers:
        assert max(losers) - min(losers) <= 1
        assert max((left[owner] for owner in held.keys() - lost.keys()), default=0) <= min(losers) + 1
