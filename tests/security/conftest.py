from __future__ import annotations

from tests.api.conftest import demo, http, log, proxy, raw_proxy, raw_socket, serve, shared_proxy

__all__ = ["demo", "http", "log", "proxy", "raw_proxy", "raw_socket", "serve", "shared_proxy"]
