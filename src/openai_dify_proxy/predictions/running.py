"""One prediction from its creation to its outputs, watched so that nothing runs on unattended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from openai_dify_proxy.errors import ContentRefused, ProxyError, UpstreamFailed, UpstreamTimeout
from openai_dify_proxy.translate.model_names import ModelRef
from openai_dify_proxy.translate.replicate_errors import translate_failed
from openai_dify_proxy.translate.replicate_outputs import picture_urls
from openai_dify_proxy.upstream.replicate import ReplicateClient
from openai_dify_proxy.wire.replicate import TERMINAL, Prediction

POLL_SECONDS = 0.5
MAX_POLL_SECONDS = 4.0
CANCEL_MARGIN = 10.0
"""Replicate is told to give up this much later than we do, so that it also does when we cannot tell it."""

log = structlog.get_logger(__name__)

Progress = Callable[[list[str]], Awaitable[None]]


class Predictions:
    """Runs predictions, and cancels those that lose their client."""

    def __init__(self, replicate: ReplicateClient) -> None:
        self._replicate = replicate
        self._cancelling: set[asyncio.Task[None]] = set()

    async def run(
        self, ref: ModelRef, inputs: Mapping[str, Any], *, seconds: float, progress: Progress | None = None
    ) -> Prediction:
        """A prediction that succeeded and has pictures. ``progress`` is told the outputs that are there already.

        Raises ProxyError. When the caller is cancelled or ``seconds`` are over, so is the prediction.
        """
        creation = asyncio.get_running_loop().create_task(
            self._replicate.create(ref, inputs, cancel_after=seconds + CANCEL_MARGIN)
        )
        prediction: Prediction | None = None
        try:
            async with asyncio.timeout(seconds):
                prediction = await asyncio.shield(creation)
                prediction = await self._poll(prediction, progress)
        except TimeoutError:
            self._abandon(creation)
            raise UpstreamTimeout("The picture took longer than this server allows.", started=True) from None
        except (asyncio.CancelledError, ProxyError):
            self._abandon(creation)
            raise
        return _checked(prediction)

    async def close(self, timeout: float) -> None:
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=timeout)
        for task in self._cancelling:
            task.cancel()
        await asyncio.gather(*self._cancelling, return_exceptions=True)

    async def _poll(self, prediction: Prediction, progress: Progress | None) -> Prediction:
        """Terminal is only what the status says: with ``Prefer: wait`` an output may come before."""
        pause = POLL_SECONDS
        seen = 0
        while prediction.status not in TERMINAL:
            urls = picture_urls(prediction.output)
            if progress is not None and len(urls) > seen:
                seen = len(urls)
                await progress(urls)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, MAX_POLL_SECONDS)
            prediction = await self._replicate.prediction(prediction.id)
        return prediction

    def _abandon(self, creation: asyncio.Task[Prediction]) -> None:
        task = asyncio.get_running_loop().create_task(self._cancel(creation))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, creation: asyncio.Task[Prediction]) -> None:
        """A creation under way is waited for, since only its answer names what is to be cancelled."""
        try:
            prediction = await creation
        except ProxyError:
            return  # nothing was created, as far as anybody can tell
        try:
            if prediction.status not in TERMINAL:
                await self._replicate.cancel(prediction.id)
                log.info("prediction_canceled", prediction_id=prediction.id)
        except ProxyError as error:
            log.warning("cancel_failed", error=error.message, detail=error.log)


def _checked(prediction: Prediction) -> Prediction:
    if prediction.status != "succeeded":
        raise translate_failed(prediction)
    if prediction.data_removed:
        raise UpstreamFailed("Replicate has erased the pictures already.", started=True)
    if not picture_urls(prediction.output):
        if "nsfw" in (prediction.logs or "").lower():
            raise ContentRefused("The model's safety filter held every picture back.", param="prompt", started=True)
        raise UpstreamFailed("The model gave out no picture.", code="no_picture", started=True)
    return prediction
