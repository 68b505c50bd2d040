"""Token buckets in the state: the arithmetic of ``Draw``, for stores that apply operations in this process.

The script for Valkey computes the same, in the same order, so that all stores give the same results.
"""

from __future__ import annotations

from msgspec import Struct

from openai_dify_proxy.state.store import Draw

_MICROSECONDS = 1_000_000

LUA = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local amount, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local missing, at = 0, now
local before, since = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%S+)$')
before, since = tonumber(before), tonumber(since)
if before and since then
  missing = math.max(0, before - math.max(0, now - since) * rate / 1000000)
  at = math.max(since, now)
end
local allowed = ARGV[4] == '1' or missing + amount <= burst
if allowed and amount > 0 then
  missing = missing + amount
  local ttl = math.max(1, math.ceil(missing / rate * 1000))
  redis.call('SET', KEYS[1], string.format('%.17g %.17g', missing, at), 'PX', string.format('%.0f', ttl))
end
return string.format('%d %.17g', allowed and 1 or 0, missing)
"""
"""``Draw`` on a server, by the server's clock: the key, then amount, rate, burst, and 1 if it is forced."""


class Level(Struct, frozen=True):
    """The result of a ``Draw``: whether it was ``allowed``, and how much is ``missing`` from a full bucket now."""

    allowed: bool
    missing: float


def read_level(result: bytes | None) -> Level:
    """Return the level in a result of ``Draw``. Raises ValueError for any other bytes."""
    allowed, _, missing = (result or b"").partition(b" ")
    return Level(allowed == b"1", float(missing))


class Drawn(Struct, frozen=True):
    """The ``result`` of a ``Draw``, the new ``value`` of its entry (None: unchanged), and its lifetime in seconds."""

    result: bytes
    value: bytes | None = None
    ttl: float = 0.0


def draw(operation: Draw, stored: bytes | None, now: float) -> Drawn:
    """Apply ``operation`` to the value of its entry at the time ``now``, in seconds. Raises ValueError for others."""
    at = int(now * _MICROSECONDS)
    missing = 0.0
    if stored is not None:
        before, _, since = stored.partition(b" ")
        elapsed = max(0, at - int(float(since)))
        missing = max(0.0, float(before) - elapsed * operation.rate / _MICROSECONDS)
        at = max(at, int(float(since)))
    allowed = operation.forced or missing + operation.amount <= operation.burst
    if not allowed or operation.amount <= 0:
        return Drawn(b"%d %.17g" % (allowed, missing))
    missing += operation.amount
    return Drawn(b"1 %.17g" % missing, b"%.17g %d" % (missing, at), missing / operation.rate)
