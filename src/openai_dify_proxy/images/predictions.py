"""Runs predictions on Replicate, and cancels them when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import structlog

from openai_dify_proxy.errors import (
    ContentBlocked,
    ProxyError,
    RateLimited,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from openai_dify_proxy.translate.replicate.errors import translate_failed
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.translate.replicate.outputs import picture_urls
from openai_dify_proxy.upstream.replicate import ReplicateClient
from openai_dify_proxy.wire.replicate import TERMINAL, Prediction

POLL_SECONDS = 0.5
MAX_POLL_SECONDS = 4.0
CANCEL_MARGIN = 10.0
"""Seconds after the proxy's deadline at which Replicate cancels a prediction, in case the cancel call fails."""

CANCEL_TRIES = 4

MAX_THROTTLE_SECONDS = 30.0
FIRST_THROTTLE = 0.25
"""The minimum delay after a 429, doubled each time: retrying too early prolongs the throttling."""

log = structlog.get_logger(__name__)

Progress = Callable[[list[str]], Awaitable[None]]


class Predictions:
    """Creates, polls and cancels predictions.

    ``first_poll`` is the delay before the first poll, which grows with each poll; ``max_throttle`` bounds the total
    delay after 429s. Both are in seconds.
    """

    def __init__(
        self,
        replicate: ReplicateClient,
        *,
        first_poll: float = POLL_SECONDS,
        max_throttle: float = MAX_THROTTLE_SECONDS,
    ) -> None:
        self._replicate = replicate
        self._first_poll = first_poll
        self._max_throttle = max_throttle
        self._live: set[asyncio.Task[Any]] = set()
        self._cancelling: set[asyncio.Task[Any]] = set()

    async def run(
        self,
        ref: ModelRef,
        inputs: Mapping[str, Any],
        *,
        seconds: float,
        progress: Progress | None = None,
        created: Callable[[str], None] | None = None,
    ) -> Prediction:
        """Return a prediction that succeeded with pictures; ``progress`` is called with new outputs.

        ``created`` is called with the id of the prediction.
        The prediction is cancelled after ``seconds``, and when the caller is. Raises ProxyError.
        """
        prediction: Prediction | None = None
        task = asyncio.current_task()
        assert task is not None
        self._live.add(task)
        try:
            async with asyncio.timeout(seconds):
                prediction = await self._create(ref, inputs, seconds + CANCEL_MARGIN)
                if created is not None:
                    created(prediction.id)
                prediction = await self._poll(prediction, progress)
        except TimeoutError:
            self._abandon(prediction)
            raise UpstreamTimeout(
                f"The picture took longer than {seconds:.0f} s, so its prediction was cancelled.", started=True
            ) from None
        except (asyncio.CancelledError, ProxyError):
            self._abandon(prediction)
            raise
        finally:
            self._live.discard(task)
        return _checked(prediction)

    async def close(self, timeout: float) -> None:
        """Cancel all predictions, and wait at most ``timeout`` seconds for Replicate to confirm."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while running := self._live | self._cancelling:
                    for task in self._live:
                        task.cancel()
                    await asyncio.wait(running)
        for task in self._cancelling:
            task.cancel()
        await asyncio.gather(*self._cancelling, return_exceptions=True)

    async def _create(self, ref: ModelRef, inputs: Mapping[str, Any], cancel_after: float) -> Prediction:
        """Create a prediction, with retries after 429s, which create nothing."""
        waited, minimum = 0.0, FIRST_THROTTLE
        while True:
            creation = asyncio.get_running_loop().create_task(
                self._replicate.create(ref, inputs, cancel_after=cancel_after)
            )
            try:
                return await asyncio.shield(creation)
            except asyncio.CancelledError:
                self._in_background(self._cancel_created(creation))
                raise
            except RateLimited as error:
                delay = max(error.retry_after or 0.0, minimum)
                if not error.retryable or waited + delay > self._max_throttle:
                    raise
            waited, minimum = waited + delay, minimum * 2
            await asyncio.sleep(delay)

    async def _poll(self, prediction: Prediction, progress: Progress | None) -> Prediction:
        """Poll until the status is terminal. With ``Prefer: wait``, outputs may appear earlier."""
        pause = self._first_poll
        seen = 0
        while prediction.status not in TERMINAL:
            urls = picture_urls(prediction.output)
            if progress is not None and len(urls) > seen:
                seen = len(urls)
                await progress(urls)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, MAX_POLL_SECONDS)
            with suppress(
                UpstreamUnreachable, UpstreamTimeout, RateLimited, UpstreamGarbled
            ):  # the prediction continues
                prediction = await self._replicate.prediction(prediction.id)
        return prediction

    def _abandon(self, prediction: Prediction | None) -> None:
        if prediction is not None:
            self._in_background(self._cancel(prediction))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel_created(self, creation: asyncio.Task[Prediction]) -> None:
        """Wait for a running creation, since only its response has the id of the prediction, and cancel that."""
        try:
            prediction = await creation
        except ProxyError:
            return  # no id to cancel
        await self._cancel(prediction)

    async def _cancel(self, prediction: Prediction) -> None:
        """Cancel a prediction. Cancelling is idempotent, so failures are retried."""
        if prediction.status in TERMINAL:
            return
        for attempt in range(CANCEL_TRIES):
            try:
                await self._replicate.cancel(prediction.id)
            except ProxyError as error:
                log.warning("cancellation_failed", prediction_id=prediction.id, error=error.message, detail=error.log)
                await asyncio.sleep(self._first_poll * 2**attempt)
            else:
                log.info("prediction_cancelled", prediction_id=prediction.id)
                return


def _checked(prediction: Prediction) -> Prediction:
    if prediction.status != "succeeded":
        raise translate_failed(prediction)
    if prediction.data_removed:
        raise UpstreamFailed("Replicate has already deleted the pictures. Send the request again.", started=True)
    if not picture_urls(prediction.output):
        if "nsfw" in (prediction.logs or "").lower():
            raise ContentBlocked(
                "The model's safety filter removed every picture. Change the prompt.", param="prompt", started=True
            )
        raise UpstreamFailed(
            "The model returned no picture. Change the prompt or the model.", code="no_picture", started=True
        )
    return prediction
