"""The client keys of the settings as ``ClientKey``."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256

from openai_dify_proxy.keys.client_key import ClientKey, hash_of, id_of_secret, shown_prefix
from openai_dify_proxy.keys.limits import Budget, KeyLimits
from openai_dify_proxy.settings import ClientKeySettings, Settings


def configured_keys(settings: Settings) -> tuple[ClientKey, ...]:
    """Return the keys of ``API_KEYS``, ``PERSONAL_KEYS`` and ``[keys.<name>]``."""
    return (*_unnamed_keys(settings), *(_named_key(key) for key in settings.keys.values()))


def _unnamed_keys(settings: Settings) -> Iterator[ClientKey]:
    """Yield the keys without a name, whose identity is the digest of the key."""
    for secret, end_user in settings.client_keys:
        key = secret.get_secret_value()
        identity = id_of_secret(key)
        yield ClientKey(id=identity, name=identity, hash=hash_of(key), prefix=shown_prefix(key), end_user=end_user)


def _named_key(settings: ClientKeySettings) -> ClientKey:
    secret = "" if settings.key is None else settings.key.get_secret_value()
    return make_key(
        settings,
        id=f"key-{sha256(b'[keys]' + settings.name.encode()).hexdigest()[:16]}",
        hash=settings.key_hash or hash_of(secret),
        prefix=shown_prefix(secret),
    )


def make_key(settings: ClientKeySettings, *, id: str, hash: str, prefix: str, created_at: float = 0) -> ClientKey:  # noqa: A002 - the names of the fields
    """Return a key with the limits of ``settings``."""
    return ClientKey(
        id=id,
        name=settings.name,
        hash=hash,
        prefix=prefix,
        label=settings.label,
        models=settings.models,
        end_user=settings.end_user,
        limits=_limits(settings),
        admin=settings.admin,
        created_at=created_at,
        expires_at=settings.expires,
    )


def _limits(settings: ClientKeySettings) -> KeyLimits:
    return KeyLimits(
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        concurrent_turns=settings.concurrent_turns,
        daily=_budget(settings.daily_turns, settings.daily_tokens, settings.daily_price),
        monthly=_budget(settings.monthly_turns, settings.monthly_tokens, settings.monthly_price),
        priority=settings.priority,
    )


def _budget(turns: int | None, tokens: int | None, price: dict[str, str]) -> Budget | None:
    budget = Budget(turns=turns, tokens=tokens, price={currency: Decimal(amount) for currency, amount in price.items()})
    return None if budget == Budget() else budget
