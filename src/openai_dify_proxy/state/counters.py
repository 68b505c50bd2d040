"""Counters in the state: the arithmetic of ``Count``, for stores that apply operations in this process."""

from __future__ import annotations

import msgspec

from openai_dify_proxy.state.store import Count

MOST = 2**63 - 1
"""The largest count; larger sums stay there."""

LUA = """
for i = 2, #ARGV, 2 do
  local sum = redis.pcall('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
  if type(sum) == 'table' and sum.err then redis.call('HSET', KEYS[1], ARGV[i], '9223372036854775807') end
end
if #ARGV > 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
local all, parts = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do parts[#parts + 1] = cjson.encode(all[i]) .. ':' .. all[i + 1] end
return '{' .. table.concat(parts, ',') .. '}'
"""
"""``Count`` on a server: the key, the lifetime in milliseconds, and pairs of name and amount."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, int]).decode


def read_counts(result: bytes | None) -> dict[str, int]:
    """Return the counts in a result of ``Count``. Raises msgspec.DecodeError for other bytes."""
    return _decode(result) if result else {}


def count(operation: Count, stored: bytes | None) -> bytes:
    """Return the value of an entry after ``operation``. Raises msgspec.DecodeError for other values."""
    counts = read_counts(stored)
    if stored and not operation.amounts:
        return stored
    for name, amount in operation.amounts:
        counts[name] = min(MOST, counts.get(name, 0) + amount)
    return _encode(counts)
