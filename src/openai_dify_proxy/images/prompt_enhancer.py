"""Prompts rewritten by a Dify app, for models that cannot do it themselves."""

from __future__ import annotations

from openai_dify_proxy.errors import UpstreamFailed
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.service import Turns


class PromptEnhancer:
    """Asks the app ``name``, whose answer is the new prompt."""

    def __init__(self, turns: Turns, name: str) -> None:
        self._turns = turns
        self._name = name

    async def rewrite(self, caller: Caller, prompt: str) -> str:
        """Raises ProxyError. A caller that goes away stops the turn."""
        running = await self._turns.begin(caller, self._name, TurnRequest(prompt, stateless=True))
        answer = Answer()
        try:
            while not running.turn.ended:
                answer.add(await running.turn.next())
        finally:
            self._turns.end(running)
        if answer.error is not None:
            raise answer.error
        text = answer.text.strip()
        if not text:
            raise UpstreamFailed("The app that enhances prompts answered nothing.")
        return text
