"""The token buckets of callers: a limit per minute is a bucket of that size, which refills evenly in a minute. Pure."""

from __future__ import annotations

from openai_dify_proxy.state.store import Draw

MINUTE = 60.0


def requests_bucket(caller: str, limit: int) -> Draw:
    """Return the operation that counts a request, unless ``limit`` requests per minute are used up."""
    return Draw(f"bucket:{caller}:requests", limit / MINUTE, limit)


def tokens_bucket(caller: str, limit: int, used: int = 0) -> Draw:
    """Return the operation that counts tokens a turn has ``used``, or reads the level."""
    return Draw(f"bucket:{caller}:tokens", limit / MINUTE, limit, used, forced=True)
