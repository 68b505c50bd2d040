"""Client keys as tables and as JSON, never with their hashes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import to_builtins
from rich.markup import escape
from rich.table import Table

from openai_dify_proxy.cli.output import console, print_table
from openai_dify_proxy.keys.client_key import ClientKey
from openai_dify_proxy.keys.limits import Budget, KeyLimits

WIDTH = 80


def print_keys(keys: Sequence[tuple[ClientKey, str]], now: float) -> None:
    """Print a table of keys, each with its source, ``state`` or ``settings``."""
    table = Table("Name", "Key", "Models", "Limits", "Status")
    rows = []
    for key, source in keys:
        status = _status(key, now)
        cells = (
            key.name,
            f"{key.prefix}…" if key.prefix else "–",
            "all" if key.models is None else ",\n".join(key.models),
            "\n".join(limits_of(key.limits)) or "none",
            status if source == "state" else f"{status} (settings)",
        )
        table.add_row(*map(escape, cells))
        limits = ", ".join(limits_of(key.limits)) or "none"
        facts = (
            f"key: {cells[1]}",
            f"models: {' '.join(cells[2].split())}",
            f"limits: {limits}",
            f"status: {cells[4]}",
        )
        rows.append((escape(key.name), escape("\n".join(facts))))
    print_table(table, rows, plain_width=WIDTH)


def print_key(key: ClientKey, source: str, now: float) -> None:
    """Print all facts about a key, one in each line."""
    facts = {
        "Name": key.name,
        "Id": key.id,
        "Key": f"{key.prefix}…" if key.prefix else "–",
        "Label": key.label,
        "Status": _status(key, now),
        "Source": source,
        "Models": "all" if key.models is None else ", ".join(key.models),
        "End user": key.end_user or "",
        "Limits": ", ".join(limits_of(key.limits)) or "none",
        "Admin": "yes" if key.admin else "no",
        "Created": _time(key.created_at) if key.created_at else "",
        "Expires": "never" if key.expires_at is None else _time(key.expires_at),
        "Old keys": ", ".join(f"until {_time(old.until)}" for old in key.previous if old.until > now),
    }
    out = console(WIDTH)
    for name, fact in facts.items():
        if fact:
            out.print(f"{name + ':':<10}{escape(fact)}", soft_wrap=True, highlight=False)


def limits_of(limits: KeyLimits) -> list[str]:
    """Describe the limits, each in a few words."""
    found = [
        f"{count} {unit}"
        for count, unit in (
            (limits.requests_per_minute, "requests/min"),
            (limits.tokens_per_minute, "tokens/min"),
            (limits.concurrent_turns, "at once"),
        )
        if count is not None
    ]
    found += [*_budget(limits.daily, "day"), *_budget(limits.monthly, "month")]
    if limits.priority:
        found.append(f"priority {limits.priority:+d}")
    return found


def _budget(budget: Budget | None, period: str) -> list[str]:
    if budget is None:
        return []
    counts = [(budget.turns, "turns"), (budget.tokens, "tokens")]
    amounts = [(amount, currency) for currency, amount in budget.price.items()]
    return [f"{count} {unit}/{period}" for count, unit in (*counts, *amounts) if count is not None]


def _status(key: ClientKey, now: float) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if key.expires_at is not None:
        return f"{'expired' if key.expires_at <= now else 'until'} {_day(key.expires_at)}"
    return "admin" if key.admin else "active"


def as_json_object(key: ClientKey, source: str = "state") -> dict[str, object]:
    """Return a key as JSON; times are in ISO 8601."""
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "label": key.label,
        "source": source,
        "models": None if key.models is None else list(key.models),
        "end_user": key.end_user,
        "limits": to_builtins(key.limits),
        "admin": key.admin,
        "created_at": _time(key.created_at) if key.created_at else None,
        "expires_at": None if key.expires_at is None else _time(key.expires_at),
        "revoked_at": None if key.revoked_at is None else _time(key.revoked_at),
        "old_keys_until": [_time(old.until) for old in key.previous],
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
