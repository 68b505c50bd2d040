"""The services that all handlers share, created once at start-up, and the identity in a request's headers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from msgspec import Struct
from starlette.requests import HTTPConnection, Request
from starlette.types import Scope

from openai_dify_proxy.api.authentication import Authenticator
from openai_dify_proxy.api.bodies import BodyReader
from openai_dify_proxy.api.exposed_metrics import Metrics
from openai_dify_proxy.api.headers import client_address
from openai_dify_proxy.api.identity import IdentityReader
from openai_dify_proxy.api.storage_check import StorageCheck
from openai_dify_proxy.api.streaming import StreamTiming
from openai_dify_proxy.api.traffic_report import ConsoleTraffic
from openai_dify_proxy.audio.service import AudioService
from openai_dify_proxy.files.artifacts.service import Address, Artifacts
from openai_dify_proxy.files.stored_files import StoredFiles
from openai_dify_proxy.images.service import ImageService
from openai_dify_proxy.limits.limiter import Limiter
from openai_dify_proxy.limits.usage import UsageReports
from openai_dify_proxy.responses.background import BackgroundResponses
from openai_dify_proxy.responses.continuation import ContinuationResolver
from openai_dify_proxy.responses.response_store import ResponseStore
from openai_dify_proxy.state import GuardedStore
from openai_dify_proxy.telemetry import new_id
from openai_dify_proxy.translate.openai.chat_answers import AnswerHead
from openai_dify_proxy.translate.turn_request import RequestIdentity, TurnRequest
from openai_dify_proxy.translate.usage_estimates import prompt_characters
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.readiness import Readiness
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.turns.side_calls import SideCalls


class Services(Struct, frozen=True, kw_only=True):
    authenticator: Authenticator
    identities: IdentityReader
    bodies: BodyReader
    apps: Apps
    profiles: Profiles
    turns: Turns
    readiness: Readiness
    timing: StreamTiming
    store: GuardedStore
    stored: ResponseStore
    continuations: ContinuationResolver
    background: BackgroundResponses
    side_calls: SideCalls
    limiter: Limiter
    usage: UsageReports
    started: int
    images: ImageService
    audio: AudioService
    files: StoredFiles
    artifacts: Artifacts
    public_url: str | None
    secret: Callable[[], Awaitable[bytes | None]]
    """Returns the key of all hashes and signatures; None while the state is unreachable."""
    traffic: ConsoleTraffic | None
    """None without the console."""
    metrics: Metrics
    storage: StorageCheck

    async def admit(self, request: Request, *, takes_forms: bool = False) -> Caller:
        """Return the caller of a request. A Dify key that came with it has been accepted by Dify.

        Handlers that read a body or write to the state call it first, so that a stranger's request costs neither.
        ``takes_forms`` says whether the body may be a form. Raises ProxyError.
        """
        caller = self.authenticator.admit(request, takes_forms=takes_forms)
        if caller.dify_key is not None:
            app = self.apps.choose(caller, None)
            if not self.profiles.accepted(app.dify):
                await self.profiles.get(app.dify, app.mode, client_address(request))
        return caller


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def address_of(scope: Scope) -> Address:
    """Return a function that returns the address of this server as the client knows it.

    It keeps nothing of the request but that address, since it may outlive the request.
    """
    host: tuple[tuple[bytes, bytes], ...] = ()
    for header in scope["headers"]:
        if header[0] == b"host":
            host = (header,)
            break
    return partial(_base_url, scope["scheme"], scope["server"], scope.get("root_path", ""), host)


def _base_url(scheme: str, server: object, root_path: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
    scope = {"type": "http", "scheme": scheme, "server": server, "root_path": root_path, "headers": headers}
    return str(HTTPConnection(scope).base_url)


def answer_head(kind: str, model: str, request: TurnRequest) -> AnswerHead:
    """Return the id, creation time and model of the answer to ``request``; ``kind`` is the id's prefix."""
    legacy = request.output is not None and request.output.legacy
    return AnswerHead(new_id(f"{kind}-", 32), int(time.time()), model, prompt_characters(request), legacy)


def identity_of(request: Request, caller: Caller) -> RequestIdentity:
    """Return what the headers name, as ``IdentityReader.read`` does."""
    return services_of(request).identities.read(request.scope["headers"], caller)
