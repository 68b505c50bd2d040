"""From an image request to pictures that are kept: plan, inputs, predictions side by side, upscaling, format."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

import structlog
from msgspec import Struct

from openai_dify_proxy.errors import InvalidRequest, ModelNotFound, UpstreamTimeout
from openai_dify_proxy.pictures.convert import convert
from openai_dify_proxy.pictures.records import PictureFacts, PictureRecord
from openai_dify_proxy.pictures.service import Kept, Pictures
from openai_dify_proxy.predictions.enhancing import Enhancer
from openai_dify_proxy.predictions.inputs import InputPictures, Source, Staged
from openai_dify_proxy.predictions.models import ImageModel, ImageModels
from openai_dify_proxy.predictions.running import Predictions, Progress
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.image_headers import HEADER_OF
from openai_dify_proxy.translate.image_mapping import ImagePlan, ImageRules, ImageWish, picture_input, plan_images
from openai_dify_proxy.translate.model_names import ModelRef
from openai_dify_proxy.translate.model_schema import ModelInputs
from openai_dify_proxy.translate.replicate_outputs import DATA_URI, decode_data_uri, picture_urls
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.upstream.fetch import OutputFetcher
from openai_dify_proxy.upstream.replicate import ReplicateClient
from openai_dify_proxy.wire.replicate import Prediction

log = structlog.get_logger(__name__)


class ImageOrder(Struct, frozen=True, kw_only=True):
    """A checked request: what is wished for, of which model, with which pictures."""

    caller: Caller
    model: str | None
    wish: ImageWish
    init: tuple[Source, ...] = ()
    mask: Source | None = None


class Made(Struct, frozen=True, kw_only=True):
    """A picture that was made and is kept."""

    record: PictureRecord
    data: bytes
    seed: int | None
    prediction_id: str
    revised_prompt: str | None


Partial = Callable[[bytes, PictureRecord, int], Awaitable[None]]
"""Is told the bytes, the record and the number of a picture that is there while others are still being made."""


class Prepared(Struct, frozen=True):
    """An order whose model is known and whose plan stands; nothing was spent yet."""

    order: ImageOrder
    model: ImageModel
    plan: ImagePlan


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
        enhancer: Enhancer | None,
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

    async def prepare(self, order: ImageOrder) -> Prepared:
        """Everything that can be refused is refused here, before anything is spent."""
        model = self._models.choose(order.model)
        inputs = await self._models.inputs(model.ref)
        rules = ImageRules(
            policy=self._policy,
            allow_unsafe=self._allow_unsafe,
            defaults=model.defaults,
            can_enhance=self._enhancer is not None,
            can_upscale=model.upscaler is not None,
        )
        plan = plan_images(order.wish, inputs, rules)
        if plan.upscale and model.upscaler is not None:
            _upscaling(await self._models.inputs(model.upscaler), plan.upscale_factor, "")
        return Prepared(order, model, plan)

    async def make(self, prepared: Prepared, partial: Partial | None = None) -> list[Made]:
        """The pictures, in the order of their seeds; fewer than asked for if the model held some back.

        If one of several predictions fails, the pictures of the others are still answered.
        """
        order, plan = prepared.order, prepared.plan
        try:
            async with asyncio.timeout(self._seconds):
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
        self, prepared: Prepared, staged: Staged, prompt: str | None, partial: Partial | None
    ) -> list[Made]:
        gate = asyncio.Semaphore(self._concurrency)

        async def one(inputs: dict[str, Any]) -> list[Made]:
            async with gate:
                return await self._run(prepared, staged.into(inputs), prompt, partial)

        tasks = [asyncio.ensure_future(one(inputs)) for inputs in prepared.plan.predictions]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
        made: list[Made] = []
        failure: BaseException | None = None
        for task in tasks:
            if error := task.exception():
                failure = failure or error
            else:
                made += task.result()
        if not made and failure is not None:
            raise failure
        if failure is not None:
            log.warning("some_pictures_failed", error=str(failure), made=len(made))
        return made[: prepared.plan.n]

    async def _run(
        self, prepared: Prepared, inputs: dict[str, Any], prompt: str | None, partial: Partial | None
    ) -> list[Made]:
        plan, model = prepared.plan, prepared.model
        if prompt is not None and plan.prompt_input is not None:
            inputs = {**inputs, plan.prompt_input: prompt}
        facts = self._facts(prepared, inputs, None)
        shown = 0

        async def progress(urls: list[str]) -> None:
            nonlocal shown
            for index in range(shown, len(urls)):
                kept = await self._keep(urls[index], plan, facts)
                if partial is not None:
                    await partial(kept.data, kept.record, index)
            shown = len(urls)

        prediction = await self._predict(model.ref, inputs, progress if partial is not None else None)
        seed = _seed(inputs)
        facts = self._facts(prepared, inputs, prediction.id)
        made = []
        for url in picture_urls(prediction.output)[: plan.n]:
            source = await self._upscaled(url, model, plan) if plan.upscale else url
            kept = await self._keep(source, plan, facts)
            made.append(
                Made(record=kept.record, data=kept.data, seed=seed, prediction_id=prediction.id, revised_prompt=prompt)
            )
        return made

    async def _predict(self, ref: ModelRef, inputs: dict[str, Any], progress: Progress | None = None) -> Prediction:
        """A model that is not official is refused by its name alone; nothing has been created then."""
        target = self._models.target(ref)
        try:
            return await self._predictions.run(target, inputs, seconds=self._seconds, progress=progress)
        except ModelNotFound:
            instead = self._models.instead_of(target)
            if instead is None:
                raise
        return await self._predictions.run(instead, inputs, seconds=self._seconds, progress=progress)

    async def _upscaled(self, url: str, model: ImageModel, plan: ImagePlan) -> str:
        """A second prediction on the upscaler, fed with the first one's output."""
        assert model.upscaler is not None
        upscaler = await self._models.inputs(model.upscaler)
        inputs = _upscaling(upscaler, plan.upscale_factor, url)
        prediction = await self._predict(model.upscaler, inputs)
        return picture_urls(prediction.output)[0]

    async def _keep(self, url: str, plan: ImagePlan, facts: PictureFacts) -> Kept:
        if url.startswith(DATA_URI):
            data = decode_data_uri(url, self._limit)
        elif self._replicate.owns(url):
            data = await self._replicate.read_own(url, self._limit)
        else:
            data = await self._outputs.read(url, self._limit)
        data = await convert(data, to=plan.output_format, quality=plan.quality)
        return await self._pictures.keep(data, facts)

    def _facts(self, prepared: Prepared, inputs: dict[str, Any], prediction_id: str | None) -> PictureFacts:
        return PictureFacts(
            model=str(prepared.model.ref),
            prediction_id=prediction_id,
            seed=_seed(inputs),
            created=int(time()),
            prompt=prepared.order.wish.prompt if self._store_prompts else None,
        )


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
