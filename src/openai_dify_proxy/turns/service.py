"""From a request to a running turn: the app, its profile, Dify's request body, and the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from msgspec import UNSET, Struct, json

from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.app_profile import AppProfile
from openai_dify_proxy.translate.dify_events import DifyEventDecoder
from openai_dify_proxy.translate.dify_request import generate_path, make_dify_request
from openai_dify_proxy.translate.stop_sequences import StopSequences
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.callers import Caller, dify_user
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.stopping import Stopper
from openai_dify_proxy.turns.turn import ClientGone, Limits, Turn
from openai_dify_proxy.upstream.dify import DifyClient

_encode = json.Encoder().encode


class Running(Struct, frozen=True):
    """A turn under way and the app that answers it."""

    turn: Turn
    model: str
    profile: AppProfile


class Turns:
    """Begins turns and takes care of those that lose their client."""

    def __init__(self, settings: Settings, apps: Apps, profiles: Profiles, dify: DifyClient) -> None:
        self._apps = apps
        self._profiles = profiles
        self._dify = dify
        self._limits = Limits(settings.silence_timeout, settings.turn_timeout)
        self._stopper = Stopper(dify)
        self._running = 0
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    async def begin(
        self, caller: Caller, model: str | None, request: TurnRequest, *, gone: Callable[[], bool] = lambda: False
    ) -> Running:
        """Asks Dify. Raises ProxyError before anything was sent, and never after; or ClientGone if ``gone`` says so."""
        app = self._apps.choose(caller, model)
        profile = self._profiles.cached(app.dify) or await self._profiles.get(app.dify, app.mode)
        user = dify_user(app.dify.key, caller, request.end_user)
        dify_request = make_dify_request(request, profile, app.rules, user)
        if dify_request.conversation_id is not UNSET and profile.hides_lost_conversations:
            await self._dify.confirm_conversation(app.dify, dify_request.conversation_id, user)
        if gone():
            raise ClientGone
        body = _encode(dify_request)
        decoder = DifyEventDecoder(
            profile.mode,
            origin=app.dify.origin,
            own_key=app.dify.own_key,
            progress=app.progress,
            output_variable=app.output_variable,
        )
        stop = StopSequences(request.stop) if request.stop else None
        exchange = await self._dify.generate(app.dify, generate_path(profile.mode), body)
        self._running += 1
        self._all_ended.clear()
        turn = Turn(exchange, decoder, app=app.dify, user=user, stop=stop, limits=self._limits)
        return Running(turn, model or app.name, profile)

    def end(self, running: Running) -> None:
        """Call once for every turn that began, whatever became of it."""
        self._running -= 1
        if not self._running:
            self._all_ended.set()
        self._stopper.abandon(running.turn, running.profile.mode)

    async def close(self, timeout: float) -> None:
        """Waits until all turns have ended and those abandoned are stopped; at most ``timeout`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._all_ended.wait()
        await self._stopper.close(timeout)
