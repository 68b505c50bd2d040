"""State that outlives a request, as small values under keys: in memory, SQLite, or Valkey and Redis.

Handlers reach it through a ``GuardedStore``, which returns None while the state is unavailable.
"""

from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.opening import open_store
from openai_dify_proxy.state.store import Add, Get, Operation, Put, StateUnavailable, Store, Take

__all__ = ["Add", "Get", "GuardedStore", "Operation", "Put", "StateUnavailable", "Store", "Take", "open_store"]
