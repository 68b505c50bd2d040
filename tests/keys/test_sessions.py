"""Sessions of the console: only the cookies of this server, unchanged and in time, stand for a key."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.keys.sessions import read_session, sign_session

SECRET = b"s" * 32
KEY = sha256(b"a key").digest()
COOKIE = sign_session(SECRET, KEY, 1000)


def test_a_cookie_stands_for_its_key_until_it_expires() -> None:
    assert read_session(SECRET, COOKIE, 999.9) == KEY
    assert read_session(SECRET, COOKIE, 1000) is None


def test_a_cookie_of_another_server_counts_for_nothing() -> None:
    assert read_session(b"t" * 32, COOKIE, 0) is None


@pytest.mark.parametrize("cookie", ["", "x", COOKIE[:-1], COOKIE + "A", COOKIE.replace(COOKIE[3], "é"), "=" * 96])
def test_malformed_cookies_count_for_nothing(cookie: str) -> None:
    assert read_session(SECRET, cookie, 0) is None


@given(st.integers(min_value=0, max_value=95), st.sampled_from("ABCabc019-_"))
def test_a_changed_cookie_counts_for_nothing(position: int, character: str) -> None:
    changed = COOKIE[:position] + character + COOKIE[position + 1 :]
    assert read_session(SECRET, changed, 0) == (KEY if changed == COOKIE else None)
