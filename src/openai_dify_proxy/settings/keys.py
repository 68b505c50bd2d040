"""The settings of client keys and end users, and a key of the TOML file; ``model`` has the other settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from openai_dify_proxy.settings.markers import After, Before, Kind, Shown
from openai_dify_proxy.settings.secret import SecretStr
from openai_dify_proxy.settings.values import Flag, Key, Patterns, Seconds, Secret, Text

KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHORTEST_SECRET = 16
"""Characters below which a secret can be guessed."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEADER = re.compile(r"[A-Za-z0-9_-]{1,100}")
_CURRENCY = re.compile(r"[A-Z]{2,10}")


def _key_name(name: str) -> str:
    if not KEY_NAME.fullmatch(name):
        raise ValueError("must have at most 64 letters, digits, dots, underscores and hyphens")
    return name


def _sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("must be 64 hexadecimal digits in lower case")
    return text


def _expiry(value: object) -> object:
    """Return seconds since the epoch. A date is its start, and a time without a zone is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError('must be a date or time, such as "2027-01-31" or "2027-01-31T18:00:00Z"') from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    return value


def _prices(value: object) -> object:
    """Parse amounts such as ``5 USD, 3.50 EUR``; a TOML file may have a table instead."""
    if isinstance(value, str):
        pairs = [part.split() for part in value.split(",") if part.strip()]
        if not all(len(pair) == 2 for pair in pairs):
            raise ValueError('must be amounts with their currencies: "5 USD, 3.50 EUR"')
        value = {currency: amount for amount, currency in pairs}
    if isinstance(value, dict):
        return {str(currency).upper(): _amount(amount) for currency, amount in value.items()}
    raise ValueError('must be amounts with their currencies: "5 USD, 3.50 EUR"')


def _amount(value: object) -> str:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError('must be amounts with their currencies: "5 USD, 3.50 EUR"') from None
    if not amount.is_finite() or amount <= 0 or len(str(value)) > 30:
        raise ValueError("must be amounts above zero")
    return str(amount)


def _currencies(prices: dict[str, str]) -> dict[str, str]:
    if not all(_CURRENCY.fullmatch(currency) for currency in prices):
        raise ValueError('must have currencies of letters, such as "USD"')
    return prices


def _header_names(value: object) -> object:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return parts
    return tuple(part.strip().lower() for part in parts if isinstance(part, str) and part.strip())


def _header(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("must be names of headers, such as X-OpenWebUI-User-Id")
    if name in {"authorization", "cookie", "host", "api-key", "x-api-key"}:
        raise ValueError("must not be a header with a key or another meaning")
    return name


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < SHORTEST_SECRET:
        raise ValueError(f"must have at least {SHORTEST_SECRET} characters. Use 'openssl rand -hex 32'")
    return secret


KeyName = Annotated[str, After(_key_name), Kind("name")]
KeyHash = Annotated[str, After(_sha256), Kind("SHA-256 in hexadecimal")]
Limit = Annotated[int, Ge(1)]
Expiry = Annotated[float, Before(_expiry), Gt(0), Kind("date or time")]
Prices = Annotated[dict[str, str], Before(_prices), After(_currencies), Kind("amounts")]
Headers = Annotated[
    tuple[Annotated[str, After(_header)], ...],
    Before(_header_names),
    MinLen(1),
    Kind("list of headers"),
]
Header = Annotated[Text, After(lambda name: _header(name.lower())), Kind("header")]
SharedSecret = Annotated[Secret, After(_long_enough), Kind("text")]


@dataclass(frozen=True, kw_only=True)
class ClientKeySettings:
    """A client key and its limits: a table ``[keys.<name>]``, or the options of ``keys create``."""

    name: KeyName
    """The name of the table. The caller's data belong to it, so a renamed key begins without any."""
    key: Key | None = None
    """The key itself. Each key needs this, `key_env` or `key_hash`."""
    key_env: Text | None = None
    """The environment variable that holds the key."""
    key_hash: KeyHash | None = None
    """The SHA-256 of the key: `printf %s "$KEY" | sha256sum`."""
    label: Annotated[str, MaxLen(200), Kind("text")] = ""
    """A description for people, such as whose key it is."""
    models: Annotated[Patterns | None, MinLen(1), Kind("list"), Shown(default="all")] = None
    """The allowed models. `*`, `?` and `[…]` are wildcards, as in file names."""
    end_user: Text | None = None
    """The end user that all requests with this key act for."""
    requests_per_minute: Annotated[Limit | None, Kind("integer of at least 1")] = None
    """The number of requests in a minute."""
    tokens_per_minute: Annotated[Limit | None, Kind("integer of at least 1")] = None
    """The number of tokens in a minute, of questions and answers."""
    concurrent_turns: Annotated[Limit | None, Kind("integer of at least 1")] = None
    """The number of turns at once."""
    daily_turns: Annotated[Limit | None, Kind("integer of at least 1")] = None
    """The number of turns in a day (UTC)."""
    daily_tokens: Annotated[Limit | None, Kind("integer of at least 1")] = None
    """The number of tokens in a day."""
    daily_price: Prices = field(default_factory=dict)
    """The price of a day's turns as Dify computes it, by currency: `5 USD, 3.50 EUR`."""
    monthly_turns: Annotated[Limit | None, Kind("integer of at least 1")] = None
    """The number of turns in a calendar month (UTC)."""
    monthly_tokens: Annotated[Limit | None, Kind("integer of at least 1")] = None
    """The number of tokens in a month."""
    monthly_price: Prices = field(default_factory=dict)
    """The price of a month's turns, by currency."""
    priority: Annotated[int, Ge(-10), Le(10)] = 0
    """Waiting turns of a higher priority are served first."""
    expires: Expiry | None = None
    """When the key stops working, such as `2027-01-31` (the start of that day in UTC)."""
    admin: Flag = False
    """Whether the key opens the routes of operators."""


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """Client keys"""

    keys_max_age: Seconds = 300
    """How long [client keys in the state](keys.md) count after they were read, while the state is unreachable.

    Afterwards requests with them get a 503, since a key may have been revoked."""
    audit_log: Annotated[
        Text, Shown(default="`~/.local/share/openai-dify-proxy/audit.jsonl`, below `$XDG_DATA_HOME` if set")
    ] = "~/.local/share/openai-dify-proxy/audit.jsonl"
    """The file that records [changes of keys and calls of operators](keys.md#the-audit-log); `off` records none."""


@dataclass(frozen=True, kw_only=True)
class EndUserSettings:
    """End users"""

    end_user_headers: Headers = ("x-openwebui-user-id",)
    """The headers that name the [end user](conversations.md#end-users); the first that a request has counts."""
    openwebui_jwt_secret: SharedSecret | None = None
    """The secret with which Open WebUI signs its users: the same as its `FORWARD_USER_INFO_HEADER_JWT_SECRET`.

    With it the [signed header](conversations.md#signed-end-users) names end users, and `END_USER_HEADERS` do not."""
    openwebui_jwt_header: Header = "x-openwebui-user-jwt"
    """The header with the signed end user."""
    chat_id_headers: Headers = (
        "x-openwebui-chat-id",
        "x-conversation-id",
        "x-chat-id",
        "x-session-id",
        "session-id",
        "session_id",
        "conversation-id",
        "chat-id",
    )
    """The headers that name the client's [chat](conversations.md); the first that a request has counts."""
