"""The filter never denies a key that the file has."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from openai_dify_proxy.state.key_filter import SLICE, KeyFilter, scan


def test_a_filter_knows_what_a_scan_and_its_user_added() -> None:
    keys = [f"kind:{number}" for number in range(3 * SLICE + 1)]
    found = KeyFilter(len(keys))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE entries (key TEXT PRIMARY KEY)")
        connection.executemany("INSERT INTO entries VALUES (?)", ((key,) for key in keys))
        before = found.due
        found.begin(expected=len(keys))
        assert (before, found.due) == (True, False)
        found.add(["kind:new"])
        for part in scan(connection):
            assert 0 < len(part) <= SLICE
            found.add(part)
        assert found.may_hold("kind:absent"), "before the end of the scan every key is possible"
        found.finish()
    assert all(found.may_hold(key) for key in [*keys, "kind:new"])
    denied = sum(not found.may_hold(f"kind:absent-{number}") for number in range(1000))
    assert denied > 950
    assert not found.due


def test_a_second_scan_forgets_removed_keys() -> None:
    found = KeyFilter(1000)
    found.begin(expected=0)
    found.add(f"kind:{number}" for number in range(1000))
    found.finish()
    found.begin(expected=1000)
    found.add(["kind:1"])
    assert found.may_hold("kind:2"), "the keys of the first scan count until the second has finished"
    found.finish()
    assert found.may_hold("kind:1")
    assert sum(found.may_hold(f"kind:{number}") for number in range(1000)) < 50


def test_many_added_keys_make_a_scan_due() -> None:
    found = KeyFilter(100)
    found.begin(expected=0)
    found.finish()
    found.add(f"kind:{number}" for number in range(100))
    assert not found.due
    found.add(["kind:100"])
    assert found.due


def test_the_filter_grows_with_the_file() -> None:
    found = KeyFilter(1_000_000)
    found.begin(expected=0)
    keys = [f"kind:{number}" for number in range(100_000)]
    found.add(keys)
    found.finish()
    found.begin(expected=100_000)
    found.add(keys[:50_000])
    assert found.may_hold(keys[-1]), "the first scan counts until the second has finished"
    found.add(keys[50_000:])
    found.finish()
    assert all(found.may_hold(key) for key in keys)
    assert sum(found.may_hold(f"kind:absent-{number}") for number in range(1000)) < 50


def test_an_invalid_filter_denies_nothing() -> None:
    found = KeyFilter(100)
    found.begin(expected=0)
    found.finish()
    assert not found.may_hold("kind:a")
    found.invalidate()
    assert found.may_hold("kind:a")
    assert found.due
