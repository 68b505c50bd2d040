"""What must outlive a request: conversations, responses, uploaded files, jobs, and the secret.

All of it is small values under keys, behind one interface with three places to keep them. Whoever wants a
value asks a ``GuardedStore``, which answers None where the state cannot be reached.
"""

from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.opening import open_store
from openai_dify_proxy.state.store import Add, Get, Operation, Put, StateUnavailable, Store, Take

__all__ = ["Add", "Get", "GuardedStore", "Operation", "Put", "StateUnavailable", "Store", "Take", "open_store"]
