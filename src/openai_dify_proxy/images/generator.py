"""Generates and stores the pictures of a request: planning, predictions, upscaling and conversion."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import time
from typing import Any

from msgspec import Struct

from openai_dify_proxy.errors import (
    SEE_LOG,
    InvalidRequest,
    ModelNotAllowed,
    ModelNotFound,
    ProxyError,
    Quoting,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamTimeout,
)
from openai_dify_proxy.images.generated import GeneratedPicture, OnPartial, gather
from openai_dify_proxy.images.header_support import header_support
from openai_dify_proxy.images.input_pictures import InputPictures, StagedInputs
from openai_dify_proxy.images.models import ImageModel, ImageModels
from openai_dify_proxy.images.picture_request import PictureRequest
from openai_dify_proxy.images.predictions import Predictions, Progress
from openai_dify_proxy.images.prompt_enhancer import PromptEnhancer
from openai_dify_proxy.pictures.convert import convert
from openai_dify_proxy.pictures.records import PictureFacts
from openai_dify_proxy.pictures.writer import PictureWriter, StoredPicture
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.replicate.candidates import picture_input
from openai_dify_proxy.translate.replicate.errors import name_picture_as_sent
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.image_plan import ImagePlan, ImageRules
from openai_dify_proxy.translate.replicate.mapping import plan_images
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.translate.replicate.model_schema import ModelInputs
from openai_dify_proxy.translate.replicate.outputs import DATA_URI, decode_data_uri, picture_urls
from openai_dify_proxy.translate.replicate.support import HeaderSupport
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.upstream.fetch import OutputFetcher
from openai_dify_proxy.upstream.replicate import ReplicateClient
from openai_dify_proxy.wire.replicate import Prediction

READ_ATTEMPTS = 3
READ_PAUSE = 0.5
"""In seconds, multiplied by the number of the attempt."""


class PreparedRequest(Struct, frozen=True):
    """A validated request with its model and plan. Preparing costs nothing at Replicate."""

    request: PictureRequest
    model: ImageModel
    plan: ImagePlan
    upscaler: ModelInputs | None
    """The inputs of the model that upscales the pictures; None without upscaling."""
    deadline: float
    """In the event loop's time."""

    @property
    def notices(self) -> Sequence[str]:
        return self.plan.notices

    @property
    def account(self) -> str:
        return str(self.model.ref)


class ImageGenerator:
    """Generates and stores pictures. Every method raises ProxyError."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: ImageModels,
        predictions: Predictions,
        replicate: ReplicateClient,
        outputs: OutputFetcher,
        inputs: InputPictures,
        writer: PictureWriter,
        enhancer: PromptEnhancer | None,
    ) -> None:
        self._models = models
        self._predictions = predictions
        self._replicate = replicate
        self._outputs = outputs
        self._inputs = inputs
        self._writer = writer
        self._enhancer = enhancer
        self._settings = settings
        self._policy = settings.unsupported_parameters
        self._allow_unsafe = settings.allow_unsafe_images
        self._seconds = settings.image_timeout
        self._concurrency = settings.image_concurrency
        self._limit = settings.max_picture_bytes
        self._store_prompts = settings.store_prompts

    def models_for(self, caller: Caller) -> list[str]:
        """Return the configured model names that the caller may use, for ``GET /v1/models``."""
        return [name for name in self._models.listed if self.allows(caller, name)]

    def allows(self, caller: Caller, name: str | None) -> bool:
        """Return whether the caller may use the model of this name. Raises ModelNotFound for a malformed name."""
        return caller.models is None or caller.may_use(*self._models.names_of(name, self._models.choose(name)))

    async def describe(self, name: str) -> tuple[ImageModel, list[HeaderSupport]]:
        """Return a model and the effect of each image header on it."""
        model = self._models.choose(name)
        inputs = await self._models.inputs(model.ref)
        upscaler = None if model.upscaler is None else await self._models.inputs(model.upscaler)
        return model, header_support(self._settings, model, inputs, upscaler)

    async def prepare(self, request: PictureRequest) -> PreparedRequest:
        """Validate a request and plan its predictions, before anything is billed. Raises ProxyError."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        await self._inputs.check(request.inputs)
        model = self._models.choose(request.model)
        if not self.allows(request.caller, request.model):
            names = ", ".join(self.models_for(request.caller)) or "none"
            raise ModelNotAllowed(
                f"Your API key does not have access to the image model '{(request.model or str(model.ref))[:200]}'. "
                f"Available image models: {names}.",
                param="model",
            )
        inputs = await self._models.inputs(model.ref)
        rules = ImageRules(
            policy=self._policy,
            allow_unsafe=self._allow_unsafe,
            defaults=model.defaults,
            can_enhance=self._enhancer is not None,
            can_upscale=model.upscaler is not None,
            mask_repaints=model.mask_repaints,
        )
        plan = plan_images(request.parameters, inputs, rules)
        upscaler = None
        if plan.upscale and model.upscaler is not None:
            upscaler = await self._models.inputs(model.upscaler)
            _upscaler_inputs(upscaler, plan.upscale_factor, "")
        return PreparedRequest(request, model, plan, upscaler, deadline)

    async def generate(self, prepared: PreparedRequest, on_partial: OnPartial | None = None) -> list[GeneratedPicture]:
        """Return the pictures in the order of their seeds.

        There are fewer than requested if the model's safety filter removed some, or if some of several predictions
        failed.
        """
        request, plan = prepared.request, prepared.plan
        try:
            async with asyncio.timeout_at(prepared.deadline):
                prompt = await self._enhance(request) if plan.enhance else None
                async with self._inputs.staged(plan, request.init, request.mask) as staged:
                    return await self._run_all(prepared, staged, prompt, on_partial)
        except TimeoutError:
            raise UpstreamTimeout(
                f"The pictures were not finished within {self._seconds:g} s, the limit of this server. Request fewer.",
                started=True,
            ) from None

    async def _enhance(self, request: PictureRequest) -> str | None:
        if self._enhancer is None or request.parameters.prompt is None:
            return None
        return await self._enhancer.rewrite(request.caller, request.parameters.prompt)

    async def _run_all(
        self, prepared: PreparedRequest, staged: StagedInputs, prompt: str | None, on_partial: OnPartial | None
    ) -> list[GeneratedPicture]:
        slots = asyncio.Semaphore(self._concurrency)
        rejections: list[ProxyError] = []

        async def one(inputs: dict[str, Any]) -> list[GeneratedPicture]:
            async with slots:
                if rejections:  # the other predictions would be rejected as well
                    raise rejections[0]
                try:
                    return await self._run(prepared, staged.add_to(inputs), prompt, on_partial)
                except ProxyError as error:
                    name_picture_as_sent(error, prepared.request.parameters, prepared.plan)
                    if not error.started:
                        rejections.append(error)
                    raise

        return await gather([one(inputs) for inputs in prepared.plan.predictions], prepared.plan.n)

    async def _run(
        self, prepared: PreparedRequest, inputs: dict[str, Any], prompt: str | None, on_partial: OnPartial | None
    ) -> list[GeneratedPicture]:
        plan = prepared.plan
        if prompt is not None and plan.prompt_input is not None:
            inputs = {**inputs, plan.prompt_input: prompt}
        progress = None
        if on_partial is not None and prepared.upscaler is None:
            progress = self._progress(prepared, inputs, on_partial)
        prediction = await self._predict(prepared, prepared.model.ref, inputs, progress)
        facts = self._facts(prepared, inputs, prediction.id)

        async def finish(url: str) -> list[GeneratedPicture]:
            stored = await self._store(url, plan, facts)
            if prepared.upscaler is not None:
                stored = await self._upscale(prepared, prepared.upscaler, url, stored, facts)
            return [
                GeneratedPicture(
                    record=stored.record,
                    data=stored.data,
                    seed=facts.seed,
                    prediction_id=prediction.id,
                    revised_prompt=prompt,
                )
            ]

        return await gather([finish(url) for url in picture_urls(prediction.output)[: plan.n]], plan.n)

    def _progress(self, prepared: PreparedRequest, inputs: dict[str, Any], on_partial: OnPartial) -> Progress:
        """Return a callback that stores pictures as they appear. A picture that cannot be stored yet is skipped."""
        facts = self._facts(prepared, inputs, None)
        shown = 0

        async def progress(urls: list[str]) -> None:
            nonlocal shown
            new, shown = urls[shown:], len(urls)
            for url in new:
                with suppress(ProxyError):
                    stored = await self._store(url, prepared.plan, facts)
                    await on_partial(stored.data, stored.record)

        return progress

    async def _predict(
        self, prepared: PreparedRequest, ref: ModelRef, inputs: dict[str, Any], progress: Progress | None = None
    ) -> Prediction:
        """Run a prediction. If Replicate requires a version, as for community models, retry with the latest one."""
        seconds = max(0.0, prepared.deadline - asyncio.get_running_loop().time())
        target = self._models.target(ref)
        created = prepared.request.record.prediction_ids.append
        try:
            return await self._predictions.run(target, inputs, seconds=seconds, progress=progress, created=created)
        except ModelNotFound:
            pinned = self._models.pin(target)
            if pinned is None:
                raise
        return await self._predictions.run(pinned, inputs, seconds=seconds, progress=progress, created=created)

    async def _upscale(
        self, prepared: PreparedRequest, upscaler: ModelInputs, url: str, small: StoredPicture, facts: PictureFacts
    ) -> StoredPicture:
        """Return the upscaled picture. After a failure the original stays stored, since it has been paid for."""
        assert prepared.model.upscaler is not None
        inputs = _upscaler_inputs(upscaler, prepared.plan.upscale_factor, url)
        try:
            prediction = await self._predict(prepared, prepared.model.upscaler, inputs)
            return await self._store(picture_urls(prediction.output)[0], prepared.plan, facts)
        except ProxyError as error:
            raise UpstreamFailed(
                Quoting(
                    "Upscaling failed",
                    error.message,
                    f" The original picture is stored at /pictures/{small.record.name}.",
                ),
                code=error.code,
                started=True,
                log=error.log,
            ) from error

    async def _store(self, url: str, plan: ImagePlan, facts: PictureFacts) -> StoredPicture:
        data = await convert(await self._read(url), to=plan.output_format, quality=plan.quality)
        return await self._writer.store(data, facts)

    async def _read(self, url: str) -> bytes:
        """Read an output, with retries after transient faults: Replicate deletes outputs after an hour."""
        if url.startswith(DATA_URI):
            return decode_data_uri(url, self._limit)
        read = self._replicate.read_own if self._replicate.owns(url) else self._outputs.read
        for attempt in range(1, READ_ATTEMPTS):
            try:
                return await read(url, self._limit)
            except UpstreamGarbled:
                await asyncio.sleep(READ_PAUSE * attempt)
        return await read(url, self._limit)

    def _facts(self, prepared: PreparedRequest, inputs: dict[str, Any], prediction_id: str | None) -> PictureFacts:
        return PictureFacts(
            model=str(prepared.model.ref),
            prediction_id=prediction_id,
            seed=_seed(inputs),
            created=int(time()),
            prompt=prepared.request.parameters.prompt if self._store_prompts else None,
        )


def _upscaler_inputs(upscaler: ModelInputs, factor: int | None, url: str) -> dict[str, Any]:
    """Return the inputs to upscale the picture at ``url``. Raises InvalidRequest if the upscaler lacks an input."""
    name = HEADER_OF["upscale_factor"]
    picture = picture_input(upscaler, "init_image")
    if picture is None:
        raise InvalidRequest(
            f"The upscaler of this server has no input for a picture. {SEE_LOG}",
            param=HEADER_OF["upscale"],
            log="The upscaler has no input for a picture. Choose another in IMAGE_UPSCALER or upscaler.",
        )
    inputs: dict[str, Any] = {picture.name: [url] if picture.kind == "array" else url}
    scale = upscaler.first(("scale", "upscale_factor"))
    if factor is not None and scale is None:
        raise InvalidRequest(
            f"The upscaler of this server does not support {name}.", param=name, code="unsupported_parameter"
        )
    if factor is not None and scale is not None:
        inputs[scale.name] = scale.accept(factor, name)
    return inputs


def _seed(inputs: dict[str, Any]) -> int | None:
    seed = inputs.get("seed")
    return seed if isinstance(seed, int) else None
