from __future__ import annotations

from decimal import Decimal

from openai_dify_proxy.keys.limits import Budget, KeyLimits
from openai_dify_proxy.turns.callers import ANONYMOUS, Caller, caller_of_dify_key, caller_of_key, dify_user

SECRET = b"a secret of this server"
LONGEST_USER = 255
"""The longest ``user`` that Dify accepts; it answers longer ones with HTTP 500."""


def test_the_name_of_a_caller_does_not_contain_its_key() -> None:
    for caller in (caller_of_key("sk-hush-hush"), caller_of_dify_key("app-hush-hush")):
        assert "hush" not in caller.id
    assert caller_of_key("sk-hush") == caller_of_key("sk-hush")
    assert caller_of_key("sk-hush") != caller_of_key("sk-tush")


def test_only_a_dify_key_is_passed_on() -> None:
    assert caller_of_dify_key("app-hush").dify_key == "app-hush"
    assert caller_of_key("app-hush").dify_key is None
    assert ANONYMOUS.dify_key is None


def test_callers_of_different_kinds_have_different_names() -> None:
    ids = [caller_of_key("app-1").id, caller_of_dify_key("app-1").id, ANONYMOUS.id, caller_of_key("anonymous").id]
    assert len(set(ids)) == len(ids)


def test_the_same_caller_and_end_user_are_always_the_same_dify_user() -> None:
    caller = caller_of_key("sk-1")
    assert dify_user(SECRET, caller, "ann") == dify_user(SECRET, caller_of_key("sk-1"), "ann")
    assert dify_user(SECRET, caller, None) == dify_user(SECRET, caller, "")


def test_different_callers_end_users_and_servers_are_different_dify_users() -> None:
    callers = [ANONYMOUS, *(caller_of_key(f"sk-{number}") for number in range(5)), caller_of_dify_key("app-1")]
    end_users = [None, "ann", "Ann", "ann ", "bob", "9:anonymous:ann", "\u00e4nn", "a\u0308nn"]
    secrets = [SECRET, b"another"]
    users = {dify_user(secret, caller, end_user) for secret in secrets for caller in callers for end_user in end_users}
    assert len(users) == len(secrets) * len(callers) * len(end_users)


def test_joined_names_are_unambiguous() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("a:", "bc"), ("a", ":bc"), ("1:a", "b"), ("a", "1:b"), ("abc", None)]
    assert len({dify_user(SECRET, Caller(name), end_user) for name, end_user in pairs}) == len(pairs)


def test_any_end_user_fits_into_a_dify_user() -> None:
    for end_user in ("x" * 10_000, "🤔" * 300, "\u2028", "ann@example.com"):
        user = dify_user(SECRET, caller_of_key("sk-1"), end_user)
        assert len(user) <= LONGEST_USER
        assert user.isascii()
        assert end_user not in user


def test_a_caller_with_a_budget_has_the_same_end_users() -> None:
    limited = Caller("key-1", limits=KeyLimits(daily=Budget(price={"USD": Decimal(1)})))
    assert dify_user(SECRET, limited, "anna") == dify_user(SECRET, Caller("key-1"), "anna")
