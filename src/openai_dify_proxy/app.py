"""The composition root: builds the ASGI application from the settings."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from hashlib import sha512
from secrets import token_bytes
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from openai_dify_proxy.api.artifacts import serve_artifact
from openai_dify_proxy.api.audio import list_audio_models, list_voices, speak, transcribe
from openai_dify_proxy.api.authentication import Authenticator, key_directory
from openai_dify_proxy.api.bodies import BodyReader
from openai_dify_proxy.api.body_budget import BodyBudget
from openai_dify_proxy.api.chat_completions import create_chat_completion
from openai_dify_proxy.api.completions import create_completion
from openai_dify_proxy.api.console import serve_console, serve_console_file
from openai_dify_proxy.api.console_keys import list_keys
from openai_dify_proxy.api.console_sessions import begin_session, end_session, show_session
from openai_dify_proxy.api.console_traffic import show_traffic
from openai_dify_proxy.api.conversation_items import (
    create_conversation_items,
    delete_conversation_item,
    list_conversation_items,
    retrieve_conversation_item,
)
from openai_dify_proxy.api.conversations import (
    create_conversation,
    delete_conversation,
    retrieve_conversation,
    update_conversation,
)
from openai_dify_proxy.api.errors import on_client_disconnect, on_proxy_error
from openai_dify_proxy.api.exposed_metrics import Metrics
from openai_dify_proxy.api.feedback import create_feedback
from openai_dify_proxy.api.files import create_file, delete_file, list_files, retrieve_file, retrieve_file_content
from openai_dify_proxy.api.handlers import Handler
from openai_dify_proxy.api.health import health, ready
from openai_dify_proxy.api.hot_path import HotPath
from openai_dify_proxy.api.identity import IdentityReader
from openai_dify_proxy.api.images import edit_image, generate_image, vary_image
from openai_dify_proxy.api.input_tokens import count_input_tokens
from openai_dify_proxy.api.limits import RATE_LIMIT_HEADERS
from openai_dify_proxy.api.metrics import metrics
from openai_dify_proxy.api.middleware import CrossOriginMiddleware, HotRoutes, RequestMiddleware
from openai_dify_proxy.api.models import list_models, retrieve_model
from openai_dify_proxy.api.openapi.handler import serve_openapi
from openai_dify_proxy.api.pictures import serve_picture
from openai_dify_proxy.api.responder import record_of
from openai_dify_proxy.api.responses import (
    cancel_response,
    create_response,
    delete_response,
    list_input_items,
    retrieve_response,
)
from openai_dify_proxy.api.routing import NormalPathRouter, on_http_exception
from openai_dify_proxy.api.services import Services
from openai_dify_proxy.api.storage_check import StorageCheck
from openai_dify_proxy.api.stored_pictures import (
    delete_stored_picture,
    list_stored_pictures,
    upload_stored_picture,
)
from openai_dify_proxy.api.streaming import StreamTiming
from openai_dify_proxy.api.traffic_report import ConsoleTraffic
from openai_dify_proxy.api.usage import retrieve_usage
from openai_dify_proxy.audio.service import AudioService
from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.files.artifacts.opening import open_artifacts
from openai_dify_proxy.files.artifacts.service import Artifacts
from openai_dify_proxy.files.fetching import UrlFiles
from openai_dify_proxy.files.stored_files import StoredFiles
from openai_dify_proxy.files.uploads import FileUploads
from openai_dify_proxy.images.ipfs_uploads import IpfsUploads
from openai_dify_proxy.images.service import ImageService
from openai_dify_proxy.keys.audit import AuditLog
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.limits.limiter import Limiter
from openai_dify_proxy.limits.usage import UsageReports
from openai_dify_proxy.pictures.retention import Retention
from openai_dify_proxy.pictures.service import open_pictures
from openai_dify_proxy.responses.background import BackgroundResponses
from openai_dify_proxy.responses.continuation import ContinuationResolver
from openai_dify_proxy.responses.response_store import ResponseStore
from openai_dify_proxy.server.protocol import HOT_PATH, REQUEST_RECORDS
from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.settings.extras import install_command
from openai_dify_proxy.settings.state_urls import is_shared
from openai_dify_proxy.state import open_store, sqlite_path
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import STATE_TIMEOUT
from openai_dify_proxy.telemetry import AccessLog, RequestRecords
from openai_dify_proxy.telemetry.access_log import PROBES
from openai_dify_proxy.telemetry.metrics.request_metrics import RequestMetrics
from openai_dify_proxy.telemetry.otel.opening import open_otel
from openai_dify_proxy.telemetry.traffic import Traffic
from openai_dify_proxy.turns.admission.limits import has_limit
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.claim_timing import DEFAULT_TIMING, ClaimTiming
from openai_dify_proxy.turns.client import ClientDisconnected
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.files import TurnFiles
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.readiness import Readiness
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.turns.side_calls import SideCalls
from openai_dify_proxy.upstream.control_calls import ControlCalls
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import ipfs_client
from openai_dify_proxy.upstream.network import Network

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/chat/completions", create_chat_completion),
    ("POST", "/v1/completions", create_completion),
    ("POST", "/v1/responses", create_response),
    ("POST", "/v1/responses/input_tokens", count_input_tokens),
    ("GET", "/v1/responses/{response_id}", retrieve_response),
    ("DELETE", "/v1/responses/{response_id}", delete_response),
    ("POST", "/v1/responses/{response_id}/cancel", cancel_response),
    ("GET", "/v1/responses/{response_id}/input_items", list_input_items),
    ("POST", "/v1/conversations", create_conversation),
    ("GET", "/v1/conversations/{conversation_id}", retrieve_conversation),
    ("POST", "/v1/conversations/{conversation_id}", update_conversation),
    ("DELETE", "/v1/conversations/{conversation_id}", delete_conversation),
    ("GET", "/v1/conversations/{conversation_id}/items", list_conversation_items),
    ("POST", "/v1/conversations/{conversation_id}/items", create_conversation_items),
    ("GET", "/v1/conversations/{conversation_id}/items/{item_id}", retrieve_conversation_item),
    ("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}", delete_conversation_item),
    ("POST", "/v1/feedback", create_feedback),
    ("POST", "/v1/files", create_file),
    ("GET", "/v1/files", list_files),
    ("GET", "/v1/files/{file_id}", retrieve_file),
    ("GET", "/v1/files/{file_id}/content", retrieve_file_content),
    ("DELETE", "/v1/files/{file_id}", delete_file),
    ("POST", "/v1/images/generations", generate_image),
    ("POST", "/v1/images/edits", edit_image),
    ("POST", "/v1/images/variations", vary_image),
    ("POST", "/v1/audio/transcriptions", transcribe),
    ("POST", "/v1/audio/speech", speak),
    ("GET", "/v1/audio/models", list_audio_models),
    ("GET", "/v1/audio/voices", list_voices),
    ("GET", "/v1/models", list_models),
    ("GET", "/v1/models/{model:path}", retrieve_model),
    ("GET", "/v1/usage", retrieve_usage),
    ("GET", "/pictures/{name}", serve_picture),
    ("GET", "/v1/stored_pictures", list_stored_pictures),
    ("DELETE", "/v1/stored_pictures/{name}", delete_stored_picture),
    ("POST", "/v1/stored_pictures/{name}/upload", upload_stored_picture),
    ("GET", "/artifacts/{name}", serve_artifact),
    ("GET", "/openapi.json", serve_openapi),
    ("GET", "/health", health),
    ("GET", "/ready", ready),
    ("GET", "/metrics", metrics),
)
"""Each path is also served without ``/v1``, since people use base URLs with and without it."""

CONSOLE_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/", serve_console),
    ("GET", "/console/session", show_session),
    ("POST", "/console/session", begin_session),
    ("DELETE", "/console/session", end_session),
    ("GET", "/console/traffic", show_traffic),
    ("GET", "/console/keys", list_keys),
    ("GET", "/console/{version}/{path:path}", serve_console_file),
)
"""Served unless ``CONSOLE`` is false."""

UNCOUNTED_ROUTES = PROBES | {path for _, path, _ in CONSOLE_ROUTES}
"""Routes that the console does not count as traffic."""

STOP_SECONDS = 8.0
"""The longest wait at shutdown for stop calls to Dify."""


def create_app(
    settings: Settings,
    *,
    timing: ClaimTiming = DEFAULT_TIMING,
    state_timeout: float = STATE_TIMEOUT,
    clock: Callable[[], float] = time.time,
    hot_path: bool = True,
) -> Starlette:
    """Build the proxy as an ASGI application, which serves one event loop from lifespan startup to shutdown.

    A turn waits at most ``state_timeout`` seconds for the state. ``clock`` returns seconds since the epoch; it dates
    the turns of conversations and the leases of background runs. Without the ``hot_path`` the application serves all
    requests; the answers are the same.
    """
    records = RequestRecords(AccessLog(None if settings.log_end_users else _log_key(settings)))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with _open_services(settings, records, timing, state_timeout, clock) as services:
            app.state.services = services
            hot = HotPath(services, records, cross_origin=bool(settings.cors_origins)) if hot_path else None
            yield {REQUEST_RECORDS: records, HOT_PATH: hot}

    app = Starlette(
        routes=_routes(settings),
        middleware=_middleware(settings, records),
        exception_handlers={
            ProxyError: on_proxy_error,
            ClientDisconnected: on_client_disconnect,
            HTTPException: on_http_exception,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.router.default = NormalPathRouter(app.router.app)
    return app


@asynccontextmanager
async def _open_services(
    settings: Settings,
    records: RequestRecords,
    timing: ClaimTiming,
    state_timeout: float,
    clock: Callable[[], float],
) -> AsyncIterator[Services]:
    """Open the services of the handlers, and close them in reverse order."""
    async with AsyncExitStack() as stack:
        network = Network(settings)
        http = HttpClient(
            connect_timeout=settings.connect_timeout, stream_buffer=settings.stream_buffer, network=network
        )
        stack.push_async_callback(http.close)
        counted = RequestMetrics({settings.image_model, *settings.image_models})
        records.add_counter(counted)
        traffic = None
        if settings.console:
            shown = Traffic(UNCOUNTED_ROUTES)
            records.add_counter(shown)
            traffic = ConsoleTraffic(shown, records)
        if (otel := open_otel(os.environ, remedy=install_command("otel"))) is not None:
            records.add_sink(otel)
            records.on_begin = otel.begin
            stack.push_async_callback(otel.close)
        dify = DifyClient(http, ControlCalls(lambda url: has_limit(settings, url)))
        apps = Apps(settings)
        profiles = Profiles(dify, settings, time.monotonic)
        state = await open_store(
            settings.state_url.get_secret_value(),
            max_entries=settings.state_max_entries,
            max_bytes=settings.state_max_bytes,
            timeout=state_timeout,
            exclusive=settings.workers == 1,
        )
        store = GuardedStore(state)
        stack.push_async_callback(store.close)
        keys = key_directory(settings, state if is_shared(settings.state_url.get_secret_value()) else None)
        await keys.open()
        stack.push_async_callback(keys.close)
        if settings.unprotected is not None and not keys.closed:
            raise SettingsError([settings.unprotected])
        conversations = Conversations(store, ttl=settings.conversation_ttl, now=clock, timing=timing)
        urls = UrlFiles(settings.connect_timeout, network)
        stack.push_async_callback(urls.close)
        stored_files = StoredFiles(store, conversations.secret, ttl=settings.file_ttl, now=clock)
        artifacts = await stack.enter_async_context(
            open_artifacts(
                settings,
                store,
                conversations.secret,
                dify,
                is_limited=lambda url: has_limit(settings, url),
                now=clock,
            )
        )
        uploads = FileUploads(dify, store, urls, stored_files, artifacts, max_bytes=settings.max_body_bytes)
        files = TurnFiles(uploads, stored_files, warn=settings.ignored_files == "warn")
        ledger = Ledger(store, days=settings.usage_days, now=clock)
        stack.push_async_callback(ledger.close)
        turns = Turns(
            settings,
            apps,
            profiles,
            dify,
            conversations,
            files=files,
            artifacts=artifacts,
            ledger=ledger,
            records=records,
        )
        stack.push_async_callback(turns.close, STOP_SECONDS)
        stored = ResponseStore(conversations)
        background = BackgroundResponses(turns, stored, conversations, records)
        stack.push_async_callback(background.close, settings.shutdown_grace)
        images = await stack.enter_async_context(
            _open_images(settings, turns, apps, profiles=profiles, artifacts=artifacts, http=http)
        )
        exposed = Metrics(counted, records, open=settings.metrics_open)
        stack.push_async_callback(exposed.close)
        services = Services(
            authenticator=Authenticator(settings, keys, AuditLog(settings.audit_log)),
            identities=IdentityReader(settings),
            bodies=BodyReader(
                settings.max_body_bytes, BodyBudget(settings.memory_for_bodies, settings.body_memory_timeout)
            ),
            apps=apps,
            profiles=profiles,
            turns=turns,
            readiness=Readiness(dify, apps.urls, time.monotonic, turns.admission),
            timing=StreamTiming(
                settings.first_event_grace, settings.heartbeat_interval, settings.heartbeat, settings.write_timeout
            ),
            store=store,
            stored=stored,
            continuations=ContinuationResolver(stored, turns, apps),
            background=background,
            side_calls=SideCalls(settings, apps),
            limiter=Limiter(store, ledger, now=clock),
            usage=UsageReports(store, ledger, now=clock),
            started=int(time.time()),
            images=images,
            audio=AudioService(settings, turns, dify),
            files=stored_files,
            artifacts=artifacts,
            public_url=settings.public_url,
            secret=conversations.secret,
            traffic=traffic,
            metrics=exposed,
            storage=StorageCheck(
                store,
                images.pictures.store if images.generator is not None else None,
                shared=sqlite_path(settings.state_url.get_secret_value()) is None,
            ),
        )
        exposed.start(services)
        if settings.console and keys.closed:  # sessions that another process began
            services.authenticator.session_secret = await conversations.secret()
        yield services


@asynccontextmanager
async def _open_images(
    settings: Settings, turns: Turns, apps: Apps, *, profiles: Profiles, artifacts: Artifacts, http: HttpClient
) -> AsyncIterator[ImageService]:
    """Open the services of the image routes. Nothing is written before the first picture is stored."""
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
        generator = None
        if settings.replicate_api_token is not None:
            from openai_dify_proxy.images.opening import open_generator  # noqa: PLC0415 - loads aiohttp and Pillow

            token = settings.replicate_api_token.get_secret_value()
            generator = await stack.enter_async_context(open_generator(settings, token, turns, apps, pictures.store))
        app_models = frozenset(name for name, model in settings.image_models.items() if model.app is not None)
        app_generator = None
        if app_models:
            from openai_dify_proxy.images.opening import make_app_generator  # noqa: PLC0415 - loads Pillow

            app_generator = make_app_generator(
                settings, turns, apps, profiles=profiles, artifacts=artifacts, store=pictures.store
            )
        yield ImageService(
            pictures=pictures,
            uploads=uploads,
            generator=generator,
            app_generator=app_generator,
            configured=frozenset(settings.image_models),
            app_models=app_models,
            default=settings.image_model,
            max_picture_bytes=settings.max_picture_bytes,
            ipfs_timeout=settings.ipfs_timeout,
        )


def _routes(settings: Settings) -> list[Route]:
    return [
        Route(path, partial(_serve, versioned, handler), methods=[method])
        for method, versioned, handler in (*ROUTES, *(CONSOLE_ROUTES if settings.console else ()))
        for path in dict.fromkeys((versioned, versioned.removeprefix("/v1")))
    ]


async def _serve(template: str, handler: Handler, request: Request) -> ASGIApp:
    """Record the template of the route, and call its handler."""
    record_of(request.scope).route = template
    return await handler(request)


def _log_key(settings: Settings) -> bytes:
    """Return the key that hashes end users in the log: the same in all processes, and unknown to whoever reads it."""
    keys = sorted(app.api_key.get_secret_value() for app in settings.apps.values())
    return sha512("\n".join(keys).encode()).digest() if keys else token_bytes(64)


_HOT_HANDLERS = {
    path: (versioned, handler)
    for method, versioned, handler in ROUTES
    if method == "POST" and versioned in ("/v1/chat/completions", "/v1/completions", "/v1/responses")
    for path in (versioned, versioned.removeprefix("/v1"))
}


def _middleware(settings: Settings, records: RequestRecords) -> list[Middleware]:
    middleware = [Middleware(RequestMiddleware, records)]
    if settings.cors_origins:
        cors = Middleware(
            CrossOriginMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=[
                "x-request-id",
                "retry-after",
                *RATE_LIMIT_HEADERS,
                "openai-processing-ms",
                "X-Dify-Conversation-Id",
                "X-Dify-Message-Id",
                "X-Queue-Position",
                "X-Unsupported-Parameters",
                "Content-Location",
            ],
            max_age=3600,
        )
        middleware.append(cors)
    return [*middleware, Middleware(HotRoutes, _HOT_HANDLERS)]
