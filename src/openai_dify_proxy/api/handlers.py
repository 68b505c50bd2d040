"""The type of the functions that serve routes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

Handler = Callable[[Request], Coroutine[Any, Any, ASGIApp]]
