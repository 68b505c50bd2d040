"""Opens the generators of pictures, and their connections, from the settings."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from openai_dify_proxy.files.artifacts.service import Artifacts
from openai_dify_proxy.images.app_generator import AppGenerator, AppImageModel
from openai_dify_proxy.images.generator import ImageGenerator
from openai_dify_proxy.images.input_pictures import InputPictures
from openai_dify_proxy.images.models import ImageModels
from openai_dify_proxy.images.predictions import Predictions
from openai_dify_proxy.images.prompt_enhancer import PromptEnhancer
from openai_dify_proxy.pictures.store import PictureStore
from openai_dify_proxy.pictures.writer import PictureWriter
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.upstream.client_urls import ClientUrls
from openai_dify_proxy.upstream.fetch import GuardedFetcher, OutputFetcher
from openai_dify_proxy.upstream.network import Network
from openai_dify_proxy.upstream.replicate import ReplicateClient

CANCEL_SECONDS = 8.0
"""How long the shutdown waits for the cancellation of predictions."""


def app_models(settings: Settings) -> dict[str, AppImageModel]:
    """Return the image models that Dify apps serve, by name."""
    return {
        name: AppImageModel(name, model.app, model.inputs)
        for name, model in settings.image_models.items()
        if model.app is not None
    }


def make_app_generator(
    settings: Settings, turns: Turns, apps: Apps, *, profiles: Profiles, artifacts: Artifacts, store: PictureStore
) -> AppGenerator:
    """Return the generator for the models that Dify apps serve."""
    return AppGenerator(
        settings,
        app_models(settings),
        turns=turns,
        apps=apps,
        profiles=profiles,
        artifacts=artifacts,
        writer=_writer(settings, store),
    )


def _writer(settings: Settings, store: PictureStore) -> PictureWriter:
    return PictureWriter(store, limit=settings.max_picture_bytes, ipfs=settings.ipfs_upload_url is not None)


@asynccontextmanager
async def open_generator(
    settings: Settings, token: str, turns: Turns, apps: Apps, store: PictureStore
) -> AsyncIterator[ImageGenerator]:
    """Open a generator for the Replicate account of ``token``, and close it at the end."""
    timeout = settings.connect_timeout
    network = Network(settings)
    async with AsyncExitStack() as stack:
        replicate = ReplicateClient(settings.replicate_api_url, token, connect_timeout=timeout, network=network)
        stack.push_async_callback(replicate.close)
        fetcher = GuardedFetcher(connect_timeout=timeout, network=network)
        stack.push_async_callback(fetcher.close)
        outputs = OutputFetcher(settings.replicate_output_hosts, connect_timeout=timeout, network=network)
        stack.push_async_callback(outputs.close)
        predictions = Predictions(replicate)
        stack.push_async_callback(predictions.close, CANCEL_SECONDS)
        urls = ClientUrls(settings.replicate_output_hosts)
        app = settings.enhance_prompt_app
        yield ImageGenerator(
            settings,
            models=ImageModels(settings, replicate, time.monotonic),
            predictions=predictions,
            replicate=replicate,
            outputs=outputs,
            inputs=InputPictures(replicate, fetcher, urls, limit=settings.max_picture_bytes),
            writer=_writer(settings, store),
            enhancer=None if app is None else PromptEnhancer(turns, apps, app),
        )
