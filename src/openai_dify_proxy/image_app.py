"""The composition root of the images side. Loaded only where there are images, so that a server without stays small."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from openai_dify_proxy.api.handlers import Handler
from openai_dify_proxy.api.images import ImageService, edit_image, generate_image, vary_image
from openai_dify_proxy.api.pictures import serve_picture
from openai_dify_proxy.api.streaming import StreamTiming
from openai_dify_proxy.images.input_pictures import InputPictures
from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.images.models import ImageModels
from openai_dify_proxy.images.predictions import Predictions
from openai_dify_proxy.images.prompt_enhancer import PromptEnhancer
from openai_dify_proxy.images.service import Images
from openai_dify_proxy.pictures.retention import Retention
from openai_dify_proxy.pictures.service import Pictures, open_pictures
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.upstream.client_urls import ClientUrls
from openai_dify_proxy.upstream.fetch import GuardedFetcher, OutputFetcher
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import ipfs_client
from openai_dify_proxy.upstream.replicate import ReplicateClient

HANDLERS: dict[str, Handler] = {
    "generate_image": generate_image,
    "edit_image": edit_image,
    "vary_image": vary_image,
    "serve_picture": serve_picture,
}

CANCEL_SECONDS = 8.0
"""How long the end of the server waits for cancellations that are under way."""


@asynccontextmanager
async def open_images(settings: Settings, turns: Turns, apps: Apps, http: HttpClient) -> AsyncIterator[ImageService]:
    """Everything that the image routes need, closed in the reverse order."""
    async with AsyncExitStack() as stack:
        pictures = open_pictures(settings)
        stack.push_async_callback(pictures.close)
        if settings.picture_retention is not None:
            retention = Retention(pictures.store, settings.picture_retention)
            retention.start()
            stack.push_async_callback(retention.close)
        uploads = None
        ipfs = ipfs_client(settings, http)
        if ipfs is not None:
            uploads = IpfsUploads(pictures.store, ipfs)
            uploads.start()
            stack.push_async_callback(uploads.close)
        yield ImageService(
            pictures=pictures,
            uploads=uploads,
            images=await _open_maker(settings, turns, apps, pictures, stack),
            client_urls=ClientUrls(settings.replicate_output_hosts),
            max_picture_bytes=settings.max_picture_bytes,
            ipfs_timeout=settings.ipfs_timeout,
            timing=StreamTiming(settings.first_event_grace, settings.heartbeat_interval, settings.heartbeat),
        )


async def _open_maker(
    settings: Settings, turns: Turns, apps: Apps, pictures: Pictures, stack: AsyncExitStack
) -> Images | None:
    if settings.replicate_api_token is None:
        return None
    token = settings.replicate_api_token.get_secret_value()
    replicate = ReplicateClient(settings.replicate_api_url, token, connect_timeout=settings.connect_timeout)
    stack.push_async_callback(replicate.close)
    fetcher = GuardedFetcher(connect_timeout=settings.connect_timeout)
    stack.push_async_callback(fetcher.close)
    outputs = OutputFetcher(settings.replicate_output_hosts, connect_timeout=settings.connect_timeout)
    stack.push_async_callback(outputs.close)
    predictions = Predictions(replicate)
    stack.push_async_callback(predictions.close, CANCEL_SECONDS)
    return Images(
        settings,
        models=ImageModels(settings, replicate, time.monotonic),
        predictions=predictions,
        replicate=replicate,
        outputs=outputs,
        inputs=InputPictures(replicate, fetcher, settings.max_picture_bytes),
        pictures=pictures,
        enhancer=None
        if settings.enhance_prompt_app is None
        else PromptEnhancer(turns, apps, settings.enhance_prompt_app),
    )
