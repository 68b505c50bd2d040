"""State that outlives a request: small values by key, in memory, SQLite, Valkey or Redis.

Handlers use a ``GuardedStore``, which returns None while the state is unavailable.
"""

from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.opening import open_store, sqlite_path
from openai_dify_proxy.state.store import (
    Add,
    Count,
    Draw,
    Get,
    Operation,
    Put,
    StateUnavailable,
    Store,
    Take,
)

__all__ = [
    "Add",
    "Count",
    "Draw",
    "Get",
    "GuardedStore",
    "Operation",
    "Put",
    "StateUnavailable",
    "Store",
    "Take",
    "open_store",
    "sqlite_path",
]
