"""What kind of app answers, asked from Dify once and remembered for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import get_args

from msgspec import Struct

from openai_dify_proxy.errors import ProxyError, UpstreamMisconfigured
from openai_dify_proxy.translate.dify.app_profile import AppProfile, read_form
from openai_dify_proxy.translate.dify.errors import WRONG_ROUTE_CODES
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.wire.dify import AppInfo, AppParameters, Mode

FRESH_SECONDS = 300.0
MAX_PROFILES = 1000
AT_ONCE = 4
"""Apps that are asked at the same time: a Dify process has ten connections for everything."""

_MODES = frozenset(get_args(Mode))


class _Known(Struct):
    profile: AppProfile
    until: float


class Profiles:
    """Profiles of apps by URL and key. ``now`` is a clock in seconds.

    An app that Dify does not describe any more (it is down, say) keeps its last profile.
    """

    def __init__(self, dify: DifyClient, now: Callable[[], float]) -> None:
        self._dify = dify
        self._now = now
        self._known: OrderedDict[DifyApp, _Known] = OrderedDict()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._asking: dict[DifyApp, asyncio.Task[AppProfile]] = {}

    def cached(self, app: DifyApp) -> AppProfile | None:
        known = self._known.get(app)
        return known.profile if known is not None and known.until > self._now() else None

    async def get(self, app: DifyApp, mode: Mode | None) -> AppProfile:
        """``mode`` is what the settings say, if anything. Raises ProxyError when Dify cannot tell."""
        known = self._known.get(app)
        if known is not None and known.until > self._now():
            return known.profile
        try:
            return await self._ask_once(app, mode)
        except ProxyError as error:
            if known is None or error.status < 500 or isinstance(error, UpstreamMisconfigured):
                raise
            return known.profile

    async def _ask_once(self, app: DifyApp, mode: Mode | None) -> AppProfile:
        """Requests that come at the same time share one question, and none of them can cancel it for the others."""
        task = self._asking.get(app)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(app, mode))
            self._asking[app] = task
            task.add_done_callback(lambda done: self._remember(app, done))
        return await asyncio.shield(task)

    def _remember(self, app: DifyApp, done: asyncio.Task[AppProfile]) -> None:
        del self._asking[app]
        if done.cancelled() or done.exception() is not None:
            return
        self._known[app] = _Known(done.result(), self._now() + FRESH_SECONDS)
        self._known.move_to_end(app)
        if len(self._known) > MAX_PROFILES:
            self._known.popitem(last=False)

    async def _ask(self, app: DifyApp, mode: Mode | None) -> AppProfile:
        async with self._slots:
            answer = await self._dify.info(app)
            info: AppInfo = answer.value
            parameters: AppParameters = (await self._dify.parameters(app)).value
            known = mode or _mode_of(info) or await self._probe(app)
        return AppProfile(known, read_form(parameters), info, parameters, answer.version)

    async def _probe(self, app: DifyApp) -> Mode:
        """For a Dify too old to tell the mode: it refuses empty requests differently, and runs none of them.

        The chat modes cannot be told apart; a chatflow's streams hold all that the others' do.
        """
        modes: tuple[tuple[Mode, str], ...] = (
            ("workflow", "/workflows/run"),
            ("completion", "/completion-messages"),
        )
        for mode, path in modes:
            if await self._dify.refuses_only_arguments(app, path, WRONG_ROUTE_CODES):
                return mode
        return "advanced-chat"


def _mode_of(info: AppInfo) -> Mode | None:
    return info.mode if info.mode in _MODES else None  # type: ignore[return-value]  # narrowed by the set
