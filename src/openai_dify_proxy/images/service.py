"""From an image request to pictures that are kept: plan, inputs, predictions side by side, upscaling, format."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from time import time
from typing import Any

import structlog
from msgspec import Struct

from openai_dify_proxy.errors import (
    InvalidRequest,
    ModelNotFound,
    ProxyError,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamTimeout,
)
from openai_dify_proxy.images.input_pictures import InputPicture, InputPictures, StagedInputs
from openai_dify_proxy.images.models import ImageModel, ImageModels
from openai_dify_proxy.images.predictions import Predictions, Progress
from openai_dify_proxy.images.prompt_enhancer import PromptEnhancer
from openai_dify_proxy.pictures.convert import convert
from openai_dify_proxy.pictures.records import PictureFacts, PictureRecord
from openai_dify_proxy.pictures.service import Pictures, StoredPicture
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.mapping import (
    ImageParameters,
    ImagePlan,
    ImageRules,
    picture_input,
    plan_images,
)
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs
from openai_dify_proxy.translate.replicate.outputs import DATA_URI, decode_data_uri, picture_urls
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.upstream.fetch import OutputFetcher
from openai_dify_proxy.upstream.replicate import ReplicateClient
from openai_dify_proxy.wire.replicate import Prediction

READ_TRIES = 3
READ_PAUSE = 0.5
"""Seconds, and more each time."""

log = structlog.get_logger(__name__)


class ImageOrder(Struct, frozen=True, kw_only=True):
    """A checked request: what is wished for, of which model, with which pictures."""

    caller: Caller
    model: str | None
    wish: ImageParameters
    init: tuple[InputPicture, ...] = ()
    mask: InputPicture | None = None


class MadePicture(Struct, frozen=True, kw_only=True):
    """A picture that was made and is kept."""

    record: PictureRecord
    data: bytes
    seed: int | None
    prediction_id: str
    revised_prompt: str | None


Partial = Callable[[bytes, PictureRecord], Awaitable[None]]
"""Is told the bytes and the record of a picture that is there while others are still being made."""


class PreparedOrder(Struct, frozen=True):
    """An order whose model is known and whose plan stands; nothing was spent yet."""

    order: ImageOrder
    model: ImageModel
    plan: ImagePlan
    upscaler: ModelInputs | None
    """The inputs of the model that enlarges the pictures afterwards, if any does."""
    deadline: float
    """In the loop's time."""


class Images:
    """Makes pictures. Every method raises ProxyError."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: ImageModels,
        predictions: Predictions,
        replicate: ReplicateClient,
        outputs: OutputFetcher,
        inputs: InputPictures,
        pictures: Pictures,
        enhancer: PromptEnhancer | None,
    ) -> None:
        self._models = models
        self._predictions = predictions
        self._replicate = replicate
        self._outputs = outputs
        self._inputs = inputs
        self._pictures = pictures
        self._enhancer = enhancer
        self._policy = settings.unsupported_parameters
        self._allow_unsafe = settings.allow_unsafe_images
        self._seconds = settings.image_timeout
        self._concurrency = settings.image_concurrency
        self._limit = settings.max_picture_bytes
        self._store_prompts = settings.store_prompts

    async def prepare(self, order: ImageOrder) -> PreparedOrder:
        """Everything that can be refused is refused here, before anything is spent."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        model = self._models.choose(order.model)
        inputs = await self._models.inputs(model.ref)
        rules = ImageRules(
            policy=self._policy,
            allow_unsafe=self._allow_unsafe,
            defaults=model.defaults,
            can_enhance=self._enhancer is not None,
            can_upscale=model.upscaler is not None,
            mask_repaints=model.mask_repaints,
        )
        try:
            plan = plan_images(order.wish, inputs, rules)
        except InvalidRequest as error:
            error.param = _as_sent(order, error.param)
            raise
        upscaler = None
        if plan.upscale and model.upscaler is not None:
            upscaler = await self._models.inputs(model.upscaler)
            _upscaling(upscaler, plan.upscale_factor, "")
        return PreparedOrder(order, model, plan, upscaler, deadline)

    async def make(self, prepared: PreparedOrder, partial: Partial | None = None) -> list[MadePicture]:
        """The pictures, in the order of their seeds; fewer than asked for if the model held some back.

        If one of several predictions fails, the pictures of the others are still answered.
        """
        order, plan = prepared.order, prepared.plan
        try:
            async with asyncio.timeout_at(prepared.deadline):
                prompt = await self._enhance(order) if plan.enhance else None
                async with self._inputs.staged(plan, order.init, order.mask) as staged:
                    return await self._run_all(prepared, staged, prompt, partial)
        except TimeoutError:
            raise UpstreamTimeout("The pictures took longer than this server allows.", started=True) from None

    async def _enhance(self, order: ImageOrder) -> str | None:
        if self._enhancer is None or order.wish.prompt is None:
            return None
        return await self._enhancer.rewrite(order.caller, order.wish.prompt)

    async def _run_all(
        self, prepared: PreparedOrder, staged: StagedInputs, prompt: str | None, partial: Partial | None
    ) -> list[MadePicture]:
        gate = asyncio.Semaphore(self._concurrency)
        refusals: list[ProxyError] = []

        async def one(inputs: dict[str, Any]) -> list[MadePicture]:
            async with gate:
                if refusals:  # what Replicate refuses once it refuses every time
                    raise refusals[0]
                try:
                    return await self._run(prepared, staged.into(inputs), prompt, partial)
                except ProxyError as error:
                    if not error.started:
                        refusals.append(error)
                    raise

        return await _gather([one(inputs) for inputs in prepared.plan.predictions], prepared.plan.n)

    async def _run(
        self, prepared: PreparedOrder, inputs: dict[str, Any], prompt: str | None, partial: Partial | None
    ) -> list[MadePicture]:
        plan = prepared.plan
        if prompt is not None and plan.prompt_input is not None:
            inputs = {**inputs, plan.prompt_input: prompt}
        progress = None
        if partial is not None and prepared.upscaler is None:
            progress = self._progress(prepared, inputs, partial)
        prediction = await self._predict(prepared, prepared.model.ref, inputs, progress)
        facts = self._facts(prepared, inputs, prediction.id)

        async def finish(url: str) -> list[MadePicture]:
            kept = await self._keep(url, plan, facts)
            if prepared.upscaler is not None:
                kept = await self._upscale(prepared, prepared.upscaler, url, kept, facts)
            return [
                MadePicture(
                    record=kept.record,
                    data=kept.data,
                    seed=facts.seed,
                    prediction_id=prediction.id,
                    revised_prompt=prompt,
                )
            ]

        return await _gather([finish(url) for url in picture_urls(prediction.output)[: plan.n]], plan.n)

    def _progress(self, prepared: PreparedOrder, inputs: dict[str, Any], partial: Partial) -> Progress:
        """Shows pictures that are there while others are being made; one that cannot be shown is no failure."""
        facts = self._facts(prepared, inputs, None)
        shown = 0

        async def progress(urls: list[str]) -> None:
            nonlocal shown
            news, shown = urls[shown:], len(urls)
            for url in news:
                with suppress(ProxyError):
                    kept = await self._keep(url, prepared.plan, facts)
                    await partial(kept.data, kept.record)

        return progress

    async def _predict(
        self, prepared: PreparedOrder, ref: ModelRef, inputs: dict[str, Any], progress: Progress | None = None
    ) -> Prediction:
        """A model that is not official is refused by its name alone; nothing has been created then."""
        seconds = max(0.0, prepared.deadline - asyncio.get_running_loop().time())
        target = self._models.target(ref)
        try:
            return await self._predictions.run(target, inputs, seconds=seconds, progress=progress)
        except ModelNotFound:
            instead = self._models.instead_of(target)
            if instead is None:
                raise
        return await self._predictions.run(instead, inputs, seconds=seconds, progress=progress)

    async def _upscale(
        self, prepared: PreparedOrder, upscaler: ModelInputs, url: str, small: StoredPicture, facts: PictureFacts
    ) -> StoredPicture:
        """The picture enlarged. If that fails, the small one is kept all the same: it has been paid for."""
        assert prepared.model.upscaler is not None
        inputs = _upscaling(upscaler, prepared.plan.upscale_factor, url)
        try:
            prediction = await self._predict(prepared, prepared.model.upscaler, inputs)
            return await self._keep(picture_urls(prediction.output)[0], prepared.plan, facts)
        except ProxyError as error:
            raise UpstreamFailed(
                f"The picture is made and kept at /pictures/{small.record.name}, but could not be upscaled: "
                f"{error.message}",
                code=error.code,
                started=True,
                log=error.log,
            ) from error

    async def _keep(self, url: str, plan: ImagePlan, facts: PictureFacts) -> StoredPicture:
        data = await convert(await self._read(url), to=plan.output_format, quality=plan.quality)
        return await self._pictures.keep(data, facts)

    async def _read(self, url: str) -> bytes:
        """An output, which has been paid for and is erased in an hour: a passing fault does not lose it."""
        if url.startswith(DATA_URI):
            return decode_data_uri(url, self._limit)
        read = self._replicate.read_own if self._replicate.owns(url) else self._outputs.read
        for attempt in range(1, READ_TRIES):
            try:
                return await read(url, self._limit)
            except UpstreamGarbled:
                await asyncio.sleep(READ_PAUSE * attempt)
        return await read(url, self._limit)

    def _facts(self, prepared: PreparedOrder, inputs: dict[str, Any], prediction_id: str | None) -> PictureFacts:
        return PictureFacts(
            model=str(prepared.model.ref),
            prediction_id=prediction_id,
            seed=_seed(inputs),
            created=int(time()),
            prompt=prepared.order.wish.prompt if self._store_prompts else None,
        )


def _as_sent(order: ImageOrder, param: str | None) -> str | None:
    """The mapping knows pictures by their headers; the client may have sent them in the body."""
    if param == HEADER_OF["init_image"] and order.init:
        return order.init[0].param
    if param == HEADER_OF["mask"] and order.mask is not None:
        return order.mask.param
    return param


def _upscaling(upscaler: ModelInputs, factor: int | None, url: str) -> dict[str, Any]:
    """The inputs that have the picture at ``url`` enlarged. Raises InvalidRequest if this upscaler cannot do it."""
    name = HEADER_OF["upscale_factor"]
    picture = picture_input(upscaler, "init_image")
    if picture is None:
        raise InvalidRequest("The configured upscaler takes no picture.", param=HEADER_OF["upscale"])
    inputs: dict[str, Any] = {picture.name: [url] if picture.kind == "array" else url}
    scale = upscaler.first(("scale", "upscale_factor"))
    if factor is not None and scale is None:
        raise InvalidRequest(f"The configured upscaler does not take {name}.", param=name, code="unsupported_parameter")
    if factor is not None and scale is not None:
        inputs[scale.name] = scale.accept(factor, name)
    return inputs


def _seed(inputs: dict[str, Any]) -> int | None:
    seed = inputs.get("seed")
    return seed if isinstance(seed, int) else None


async def _gather(works: list[Coroutine[Any, Any, list[MadePicture]]], most: int) -> list[MadePicture]:
    """What all of them make, side by side; a failure of some is none of the whole."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
    failures = [error for task in tasks if (error := task.exception()) is not None]
    made = [picture for task in tasks if task.exception() is None for picture in task.result()]
    if failures and not made:
        raise failures[0]
    for error in failures:
        log.warning("picture_failed", error=type(error).__name__, code=getattr(error, "code", None))
    return made[:most]
