"""Generated pictures, and the generators that the image routes use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from msgspec import Struct

from openai_dify_proxy.images.picture_request import PictureRequest
from openai_dify_proxy.pictures.records import PictureRecord

log = structlog.get_logger(__name__)


class GeneratedPicture(Struct, frozen=True, kw_only=True):
    """A picture that was generated and stored. A picture of a Dify app has neither seed nor prediction."""

    record: PictureRecord
    data: bytes
    seed: int | None = None
    prediction_id: str | None = None
    revised_prompt: str | None = None


OnPartial = Callable[[bytes, PictureRecord], Awaitable[None]]
"""Called with each stored picture while others are still being generated."""


class Prepared(Protocol):
    """A validated request. ``notices`` are the names of dropped parameters.

    ``account`` is the name of the app or model that the pictures are counted for.
    """

    @property
    def notices(self) -> Sequence[str]: ...

    @property
    def account(self) -> str: ...


_P = TypeVar("_P", bound=Prepared)


class PictureGenerator(Protocol[_P]):
    """Generates and stores pictures. Both methods raise ProxyError."""

    async def prepare(self, request: PictureRequest) -> _P:
        """Validate a request, before anything is billed."""

    async def generate(self, prepared: _P, on_partial: OnPartial | None = None) -> list[GeneratedPicture]:
        """Return the pictures, fewer than requested if some of several runs failed."""


async def gather(jobs: list[Coroutine[Any, Any, list[GeneratedPicture]]], limit: int) -> list[GeneratedPicture]:
    """Run ``jobs`` concurrently and return at most ``limit`` of their pictures. Raises the first error if all fail."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
    failures = [error for task in tasks if (error := task.exception()) is not None]
    pictures = [picture for task in tasks if task.exception() is None for picture in task.result()]
    if failures and not pictures:
        raise failures[0]
    for error in failures:
        log.warning("picture_failed", error=type(error).__name__, code=getattr(error, "code", None))
    return pictures[:limit]
