from __future__ import annotations

import pytest
from msgspec import structs

from openai_dify_proxy.keys import changes
from openai_dify_proxy.keys.changes import KeyProblem, add_key, find_key, revoke_key, rotate_key
from openai_dify_proxy.keys.client_key import ClientKey, OldSecret, hash_of


def key(name: str, *, created_at: float = 0, revoked_at: float | None = None, secret: str = "") -> ClientKey:
    identity = f"key-{name}-{created_at:g}"
    return ClientKey(
        id=identity, name=name, hash=hash_of(secret or identity), created_at=created_at, revoked_at=revoked_at
    )


ANNA, BERT = key("anna"), key("bert")


def test_a_key_is_found_by_its_name_and_by_its_id() -> None:
    assert find_key((ANNA, BERT), "bert") is BERT
    assert find_key((ANNA, BERT), ANNA.id) is ANNA


def test_of_keys_with_one_name_the_valid_one_is_found_then_the_latest() -> None:
    old, older, new = key("x", created_at=2, revoked_at=5), key("x", created_at=1, revoked_at=4), key("x", created_at=0)
    assert find_key((old, older), "x") is old
    assert find_key((old, new, older), "x") is new


def test_an_unknown_key_is_an_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(KeyProblem, match=r"There is no key 'carl'\. Keys: anna\."):
        find_key((ANNA, key("gone", revoked_at=1)), "carl")


def test_a_name_can_be_used_again_only_after_revocation() -> None:
    with pytest.raises(KeyProblem, match="There is a key 'anna' already"):
        add_key((ANNA,), key("anna", created_at=1))
    keys, _ = revoke_key((ANNA,), "anna", 9)
    assert [one.revoked_at for one in add_key(keys, key("anna", created_at=10))] == [9, None]


def test_a_secret_cannot_be_added_twice_even_after_revocation() -> None:
    same = key("other", secret=ANNA.id)
    for keys in ((ANNA,), revoke_key((ANNA,), "anna", 9)[0]):
        with pytest.raises(KeyProblem, match="this secret already"):
            add_key(keys, same)


def test_a_full_list_loses_the_keys_that_were_revoked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_KEYS", 2)
    first, second = key("a", revoked_at=1), key("b", revoked_at=2)
    assert add_key((second, first), ANNA) == (second, ANNA)
    with pytest.raises(KeyProblem, match="2 keys, which is the limit"):
        add_key((ANNA, BERT), key("carl"))


def test_a_revoked_key_keeps_its_identity_and_loses_its_old_secrets() -> None:
    old = structs.replace(ANNA, previous=(OldSecret(hash_of("old"), 100),))
    keys, revoked = revoke_key((BERT, old), "anna", 7)
    assert keys == (BERT, revoked)
    assert revoked == structs.replace(ANNA, revoked_at=7)
    with pytest.raises(KeyProblem, match="is revoked"):
        revoke_key(keys, "anna", 8)
    with pytest.raises(KeyProblem, match="is revoked"):
        rotate_key(keys, "anna", "s", 8, 0)


def test_a_rotated_key_keeps_everything_but_its_secret() -> None:
    keys, rotated = rotate_key((ANNA, BERT), "anna", "sk-dify-0123456789", 10, 0)
    assert keys == (rotated, BERT)
    assert rotated == structs.replace(ANNA, hash=hash_of("sk-dify-0123456789"), prefix="sk-d")


def test_old_secrets_work_until_their_grace_ends_and_only_the_last_five() -> None:
    keys: changes.Keys = (ANNA,)
    for number in range(8):
        keys, _ = rotate_key(keys, "anna", f"secret {number}", 10 + number, 100)
    (anna,) = keys
    assert [old.hash for old in anna.previous] == [hash_of(f"secret {number}") for number in range(2, 7)]
    _, later = rotate_key(keys, "anna", "last", 115, 0)
    assert [old.until for old in later.previous] == [116, 117]
