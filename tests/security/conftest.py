from __future__ import annotations

from tests.api.conftest import (
    demo,
    hot_path,
    http,
    image_proxy,
    log,
    predictions,
    program,
    proxy,
    raw_proxy,
    raw_socket,
    replicate,
    serve,
    serve_images,
    shared_image_proxy,
    shared_proxy,
)

__all__ = [
    "demo",
    "hot_path",
    "http",
    "image_proxy",
    "log",
    "predictions",
    "program",
    "proxy",
    "raw_proxy",
    "raw_socket",
    "replicate",
    "serve",
    "serve_images",
    "shared_image_proxy",
    "shared_proxy",
]
