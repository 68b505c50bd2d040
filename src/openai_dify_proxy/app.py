"""The composition root: settings in, ASGI application out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from openai_dify_proxy.api.authentication import Authenticator
from openai_dify_proxy.api.bodies import BodyReader
from openai_dify_proxy.api.chat_completions import create_chat_completion
from openai_dify_proxy.api.completions import create_completion
from openai_dify_proxy.api.conversations import (
    create_conversation,
    delete_conversation,
    list_conversation_items,
    retrieve_conversation,
    update_conversation,
)
from openai_dify_proxy.api.errors import on_client_gone, on_http_exception, on_proxy_error
from openai_dify_proxy.api.handlers import Handler
from openai_dify_proxy.api.health import health, ready
from openai_dify_proxy.api.images_off import refuse_images, refuse_picture
from openai_dify_proxy.api.middleware import RequestMiddleware
from openai_dify_proxy.api.models import list_models, retrieve_model
from openai_dify_proxy.api.responses import (
    cancel_response,
    create_response,
    delete_response,
    list_input_items,
    retrieve_response,
)
from openai_dify_proxy.api.services import Services
from openai_dify_proxy.api.streaming import StreamTiming
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.responses.background import BackgroundResponses
from openai_dify_proxy.responses.continuation import ContinuationResolver
from openai_dify_proxy.responses.response_store import ResponseStore
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state import open_store
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.client import ClientGone
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.readiness import Readiness
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.turns.side_calls import SideCalls
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.http import HttpClient

Routes = tuple[tuple[str, str, Handler], ...]

OPENAI_ROUTES: Routes = (
    ("POST", "/chat/completions", create_chat_completion),
    ("POST", "/completions", create_completion),
    ("POST", "/responses", create_response),
    ("GET", "/responses/{response_id}", retrieve_response),
    ("DELETE", "/responses/{response_id}", delete_response),
    ("POST", "/responses/{response_id}/cancel", cancel_response),
    ("GET", "/responses/{response_id}/input_items", list_input_items),
    ("POST", "/conversations", create_conversation),
    ("GET", "/conversations/{conversation_id}", retrieve_conversation),
    ("POST", "/conversations/{conversation_id}", update_conversation),
    ("DELETE", "/conversations/{conversation_id}", delete_conversation),
    ("GET", "/conversations/{conversation_id}/items", list_conversation_items),
    ("GET", "/models", list_models),
    ("GET", "/models/{model:path}", retrieve_model),
)
"""Each is served under ``/v1`` and without it, since people paste both kinds of base URL."""

IMAGE_ROUTES: tuple[tuple[str, str, str], ...] = (
    ("POST", "/images/generations", "generate_image"),
    ("POST", "/images/edits", "edit_image"),
    ("POST", "/images/variations", "vary_image"),
)
"""The same; their handlers are named, since they are loaded only where there are images."""

PICTURE_ROUTES: tuple[tuple[str, str, str], ...] = (("GET", "/pictures/{name}", "serve_picture"),)

PLAIN_ROUTES: Routes = (
    ("GET", "/health", health),
    ("GET", "/ready", ready),
)

STOP_SECONDS = 8.0
"""How long the end of the server waits for stop calls that are under way."""


def create_app(settings: Settings) -> Starlette:
    """The whole proxy as an ASGI application. It serves one event loop, from lifespan startup to shutdown."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        http = HttpClient(connect_timeout=settings.connect_timeout)
        dify = DifyClient(http)
        apps = Apps(settings)
        profiles = Profiles(dify, time.monotonic)
        store = GuardedStore(
            await open_store(settings.state_url.get_secret_value(), max_entries=settings.state_max_entries)
        )
        conversations = Conversations(store, ttl=settings.conversation_ttl, now=time.time)
        turns = Turns(settings, apps, profiles, dify, conversations)
        stored = ResponseStore(conversations)
        background = BackgroundResponses(turns, stored, conversations)
        urls = [app.dify.url for app in apps.all.values()]
        if settings.dify_api_url is not None:
            urls.append(settings.dify_api_url)
        app.state.services = Services(
            authenticator=Authenticator(settings),
            bodies=BodyReader(settings.max_body_bytes),
            apps=apps,
            profiles=profiles,
            turns=turns,
            readiness=Readiness(
                dify, urls + ([settings.dify_api_url] if settings.dify_api_url else []), time.monotonic
            ),
            timing=StreamTiming(settings.first_event_grace, settings.heartbeat_interval, settings.heartbeat),
            store=store,
            stored=stored,
            continuations=ContinuationResolver(stored, turns, apps),
            background=background,
            side_calls=SideCalls(settings),
            started=int(time.time()),
            image_models=_image_models(settings),
        )
        try:
            async with AsyncExitStack() as stack:
                if has_images(settings):
                    from openai_dify_proxy.image_app import open_images  # noqa: PLC0415 - costs memory

                    app.state.images = await stack.enter_async_context(open_images(settings, turns, apps, http))
                yield
        finally:
            await background.close(settings.shutdown_grace)
            await turns.close(STOP_SECONDS)
            await store.close()
            await http.close()

    images, pictures = _image_routes(settings)
    versioned: Routes = OPENAI_ROUTES + images
    routes = [Route(f"/v1{path}", handler, methods=[method]) for method, path, handler in versioned]
    routes += [Route(path, handler, methods=[method]) for method, path, handler in versioned + pictures + PLAIN_ROUTES]
    app = Starlette(
        routes=routes,
        middleware=_middleware(settings),
        exception_handlers={
            ProxyError: on_proxy_error,
            ClientGone: on_client_gone,
            HTTPException: on_http_exception,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def has_images(settings: Settings) -> bool:
    """Whether pictures are made here, or were and may still be asked for."""
    return (
        settings.replicate_api_token is not None
        or settings.picture_store is not None
        or Path(settings.image_storage_dir).expanduser().is_dir()
    )


def _image_routes(settings: Settings) -> tuple[Routes, Routes]:
    if not has_images(settings):
        off: Routes = tuple((method, path, refuse_images) for method, path, _ in IMAGE_ROUTES)
        return off, tuple((method, path, refuse_picture) for method, path, _ in PICTURE_ROUTES)
    from openai_dify_proxy.image_app import HANDLERS  # noqa: PLC0415 - costs memory

    images = tuple((method, path, HANDLERS[name]) for method, path, name in IMAGE_ROUTES)
    return images, tuple((method, path, HANDLERS[name]) for method, path, name in PICTURE_ROUTES)


def _image_models(settings: Settings) -> tuple[str, ...]:
    if settings.replicate_api_token is None:
        return ()
    return tuple(dict.fromkeys([*settings.image_models, settings.image_model]))


def _middleware(settings: Settings) -> list[Middleware]:
    middleware = [Middleware(RequestMiddleware)]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=[
                "x-request-id",
                "retry-after",
                "openai-processing-ms",
                "X-Dify-Conversation-Id",
                "X-Dify-Message-Id",
                "X-Unsupported-Parameters",
                "Content-Location",
            ],
            max_age=3600,
        )
        middleware.append(cors)
    return middleware
