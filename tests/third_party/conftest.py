from __future__ import annotations

from tests.clients.conftest import demo, proxy

__all__ = ["demo", "proxy"]
