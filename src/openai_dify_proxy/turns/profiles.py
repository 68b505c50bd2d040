"""Profiles of Dify apps (mode, form, version), cached for five minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import get_args

from openai_dify_proxy.errors import AuthenticationFailed, ProxyError, UpstreamTimeout
from openai_dify_proxy.settings import LimitSettings
from openai_dify_proxy.translate.dify.app_profile import AppProfile, read_form
from openai_dify_proxy.translate.dify.errors import WRONG_ROUTE_CODES
from openai_dify_proxy.turns.new_keys import NewKeys
from openai_dify_proxy.upstream.cache import Loaded, RefreshingCache, is_outage
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.wire.dify import AppInfo, AppParameters, Mode

FRESH_SECONDS = 300.0
MAX_PROFILES = 1000
KNOWN_SECONDS = 3600.0
"""How long a key counts as accepted by Dify after its profile became stale."""

CONCURRENCY = 4
"""How many profiles are loaded at the same time: a Dify process serves only ten connections."""

_Permit = AbstractAsyncContextManager[object]
"""The permission to load one profile."""

_MODES = frozenset(get_args(Mode))


class Profiles:
    """Profiles of apps by URL and key. ``now`` is a clock in seconds, and ``limits`` applies to the checks of new keys.

    During an outage of Dify the last profile of an app is used. A profile is also the proof that Dify accepts the key.
    """

    def __init__(self, dify: DifyClient, limits: LimitSettings, now: Callable[[], float]) -> None:
        self._dify = dify
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._new_keys = NewKeys(limits, now)
        self._refused: set[DifyApp] = set()
        self._cache: RefreshingCache[DifyApp, AppProfile] = RefreshingCache(now, max_entries=MAX_PROFILES)
        self.cached: Callable[[DifyApp], AppProfile | None] = self._cache.fresh
        """Returns the profile of an app, unless it is missing or stale."""

    def usable(self, app: DifyApp) -> bool | None:
        """Return whether Dify accepted the key of a configured app when it was asked last; None if it is unknown."""
        if app in self._refused:
            return False
        return True if self._cache.was_fresh(app, KNOWN_SECONDS) else None

    def accepted(self, app: DifyApp) -> bool:
        """Return whether Dify has accepted the app's key, at the latest about an hour ago."""
        return self._cache.was_fresh(app, KNOWN_SECONDS)

    async def get(self, app: DifyApp, mode: Mode | None, client: str = "") -> AppProfile:
        """Return the profile of ``app``. ``mode`` is the configured one, if any. Raises ProxyError.

        ``client`` is the address of the client: new keys of one address do not delay those of others.
        """
        if app.own_key or self.accepted(app):
            return await self._cache.get(app, lambda: self._load(app, mode, self._slots))
        with self._new_keys.waiting(app, client):
            return await self._cache.get(app, lambda: self._check(app, mode, client))

    async def _check(self, app: DifyApp, mode: Mode | None, client: str) -> Loaded[AppProfile]:
        """Load the profile of an app with a new key."""
        try:
            async with asyncio.timeout(self._new_keys.timeout):
                return await self._load(app, mode, self._new_keys.check(client))
        except TimeoutError:
            raise UpstreamTimeout(f"Dify did not confirm the Dify key within {self._new_keys.timeout:g} s.") from None

    async def _load(self, app: DifyApp, mode: Mode | None, permit: _Permit) -> Loaded[AppProfile]:
        try:
            loaded = await self._fetch(app, mode, permit)
        except AuthenticationFailed as error:
            self._cache.drop(app)
            self._new_keys.reject(app, error)
            raise
        except ProxyError as error:
            if app.own_key and not is_outage(error):
                self._refused.add(app)
            raise
        self._refused.discard(app)
        return loaded

    async def _fetch(self, app: DifyApp, mode: Mode | None, permit: _Permit) -> Loaded[AppProfile]:
        async with permit:
            answer = await self._dify.info(app)
            info: AppInfo = answer.value
            parameters: AppParameters = (await self._dify.parameters(app)).value
            mode = mode or _mode_of(info) or await self._probe(app)
        profile = AppProfile(mode, read_form(parameters), info, parameters, answer.version)
        return Loaded(profile, FRESH_SECONDS)

    async def _probe(self, app: DifyApp) -> Mode:
        """Detect the mode on a Dify whose ``/info`` lacks it: each route rejects empty requests to apps of other modes.

        The chat modes cannot be distinguished; a chatflow's streams have every event of the others.
        """
        modes: tuple[tuple[Mode, str], ...] = (
            ("workflow", "/workflows/run"),
            ("completion", "/completion-messages"),
        )
        for mode, path in modes:
            if await self._dify.has_route(app, path, WRONG_ROUTE_CODES):
                return mode
        return "advanced-chat"


def _mode_of(info: AppInfo) -> Mode | None:
    return info.mode if info.mode in _MODES else None  # type: ignore[return-value]  # narrowed by the set
