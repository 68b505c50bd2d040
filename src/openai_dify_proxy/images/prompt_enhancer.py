"""Rewrites prompts with a Dify app, for models without prompt enhancement."""

from __future__ import annotations

from openai_dify_proxy.errors import UpstreamFailed
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.service import Turns


class PromptEnhancer:
    """Sends prompts to the app ``name``, whose answer is the new prompt."""

    def __init__(self, turns: Turns, apps: Apps, name: str) -> None:
        self._turns = turns
        self._apps = apps
        self._name = name

    async def rewrite(self, caller: Caller, prompt: str) -> str:
        """Return the new prompt. Cancellation stops the turn. Raises ProxyError."""
        app = self._apps.choose_own(caller, self._name)
        answer = Answer()
        async with self._turns.run(caller, app, TurnRequest(prompt, stateless=True)) as turn:
            async for events in turn:
                answer.add(events)
        if answer.error is not None:
            raise answer.error
        text = answer.text.strip()
        if not text:
            raise UpstreamFailed(
                "The app that enhances prompts returned an empty answer. Omit X-Replicate-Enhance-Prompt."
            )
        return text
