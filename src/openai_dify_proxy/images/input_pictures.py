"""Passes initial images and masks to a model, as URLs, data URIs or uploaded files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from msgspec import Struct

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.images.picture_request import InputPicture
from openai_dify_proxy.pictures.decoding import verify_input_picture
from openai_dify_proxy.pictures.masks import invert_mask, mask_in_polarity
from openai_dify_proxy.translate.pictures.formats import sniff
from openai_dify_proxy.translate.replicate.headers import HEADER_OF
from openai_dify_proxy.translate.replicate.image_plan import ImagePlan
from openai_dify_proxy.translate.replicate.model_schema import ModelInput
from openai_dify_proxy.translate.replicate.outputs import encode_data_uri
from openai_dify_proxy.upstream.client_urls import ClientUrls
from openai_dify_proxy.upstream.fetch import GuardedFetcher
from openai_dify_proxy.upstream.replicate import ReplicateClient

MAX_DATA_URI_BYTES = 256_000
"""Replicate accepts data URIs of up to 256 kB. Larger pictures are uploaded, and deleted after the prediction."""


class StagedInputs(Struct, frozen=True):
    """The URLs of pictures for the model, and the inputs for them."""

    init: tuple[str, ...] = ()
    mask: str | None = None
    init_input: ModelInput | None = None
    mask_input: ModelInput | None = None

    def add_to(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs of a prediction together with the pictures."""
        inputs = dict(inputs)
        if self.init_input is not None and self.init:
            inputs[self.init_input.name] = list(self.init) if self.init_input.kind == "array" else self.init[0]
        if self.mask_input is not None and self.mask is not None:
            inputs[self.mask_input.name] = self.mask
        return inputs


class InputPictures:
    """Makes pictures readable for Replicate. ``limit`` is the largest picture in bytes."""

    def __init__(self, replicate: ReplicateClient, fetcher: GuardedFetcher, urls: ClientUrls, *, limit: int) -> None:
        self._replicate = replicate
        self._fetcher = fetcher
        self._urls = urls
        self._limit = limit

    async def check(self, pictures: Iterable[InputPicture]) -> None:
        """Validate URLs, and decode pictures in full. Raises InvalidRequest."""
        for picture in pictures:
            if picture.url is not None:
                self._urls.check(picture.url, picture.param)
            if picture.data is not None:
                await verify_input_picture(picture.data, picture.param)

    @asynccontextmanager
    async def staged(
        self, plan: ImagePlan, init: Sequence[InputPicture], mask: InputPicture | None
    ) -> AsyncIterator[StagedInputs]:
        """Yield the pictures for a prediction. Uploaded files are deleted at the end. Raises ProxyError."""
        uploads: list[str] = []
        try:
            placed: list[str] = []
            if plan.init_input is not None:
                placed = [source.url or await self._place(source.data or b"", uploads) for source in init]
            placed_mask = None
            if plan.mask_input is not None and mask is not None:
                placed_mask = await self._place_mask(mask, plan.invert_mask, uploads)
            yield StagedInputs(tuple(placed), placed_mask, plan.init_input, plan.mask_input)
        finally:
            for file_id in uploads:
                with suppress(ProxyError):  # Replicate deletes files after 24 hours
                    await self._replicate.delete_file(file_id)

    async def _place_mask(self, mask: InputPicture, black_repaints: bool, uploads: list[str]) -> str:
        """Return the URL of the mask in the model's polarity.

        A mask from the header has white repaint areas. If the model expects the same, its URL is passed on without
        reading it. Other masks may be in OpenAI's format, with transparent repaint areas, and have to be read.
        """
        white = mask.param == HEADER_OF["mask"]
        if mask.url is not None and white and not black_repaints:
            return mask.url
        data = mask.data or await self._fetcher.read(mask.url or "", self._limit, mask.param)
        if white:
            data = await invert_mask(data, param=mask.param)
        else:
            data = await mask_in_polarity(data, black_repaints=black_repaints, param=mask.param)
        return await self._place(data, uploads)

    async def _place(self, data: bytes, uploads: list[str]) -> str:
        kind = sniff(data)
        media_type = kind.media_type if kind is not None else "application/octet-stream"
        if len(data) <= MAX_DATA_URI_BYTES:
            return encode_data_uri(data, media_type)
        file = await self._replicate.upload(data, media_type, f"input.{kind.extension if kind else 'bin'}")
        uploads.append(file.id)
        return file.urls.get("get", "")
