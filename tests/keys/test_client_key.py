from __future__ import annotations

from hashlib import sha256

import pytest
from msgspec import json, structs

from openai_dify_proxy.keys.client_key import (
    ClientKey,
    allows,
    hash_of,
    id_of_secret,
    new_id,
    new_secret,
    shown_prefix,
)
from openai_dify_proxy.turns.callers import caller_of_key

SECRETS = [new_secret() for _ in range(100)]


def test_new_keys_are_long_random_and_fit_into_a_header() -> None:
    assert len(set(SECRETS)) == 100
    assert all(len(secret.removeprefix("sk-dify-")) == 40 and secret.isascii() for secret in SECRETS)
    assert len({new_id() for _ in range(100)}) == 100


def test_only_the_hash_of_a_key_is_stored() -> None:
    secret = SECRETS[0]
    key = ClientKey(id="key-1", name="anna", hash=hash_of(secret), prefix=shown_prefix(secret))
    assert key.hash == sha256(secret.encode()).hexdigest()
    assert key.prefix == secret[:12]
    assert secret[12:].encode() not in json.encode(key)
    assert json.decode(json.encode(key), type=ClientKey) == key


def test_of_a_short_key_less_is_shown() -> None:
    assert shown_prefix("0123456789abcdef") == "0123"
    assert shown_prefix("abc") == ""


def test_the_identity_of_a_key_in_API_KEYS_is_that_of_earlier_versions() -> None:  # noqa: N802 - the setting
    """The digest as it was computed before keys had names: conversations of before belong to it."""
    assert id_of_secret("sk-hush") == caller_of_key("sk-hush").id == f"key-{sha256(b'sk-hush').hexdigest()[:16]}"


def test_a_key_works_until_it_expires_or_is_revoked() -> None:
    key = ClientKey(id="key-1", name="anna", hash="0" * 64)
    assert key.works(1e12)
    assert [structs.replace(key, expires_at=10).works(now) for now in (9.9, 10)] == [True, False]
    assert not structs.replace(key, revoked_at=10).works(0)


@pytest.mark.parametrize(
    ("models", "names", "allowed"),
    [
        (None, ("anything",), True),
        (("support",), ("support",), True),
        (("support",), ("Support",), False),
        (("support",), ("support-2",), False),
        (("sales", "support-*"), ("support-2",), True),
        (("black-forest-labs/*",), ("black-forest-labs/flux-schnell",), True),
        (("support",), ("other", "support"), True),
        ((), ("support",), False),
    ],
)
def test_allowed_models_are_names_and_patterns(
    models: tuple[str, ...] | None, names: tuple[str, ...], allowed: bool
) -> None:
    assert allows(models, *names) is allowed
