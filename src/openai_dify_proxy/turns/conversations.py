"""Find the conversation that a turn continues: named by the client, known by its history, or new.

The state holds keyed hashes, ids and times, never message text.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_bytes

from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.store import Add
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.request import named_conversation
from openai_dify_proxy.translate.turn_request import TurnRequest
from openai_dify_proxy.turns.apps import App
from openai_dify_proxy.turns.callers import Caller
from openai_dify_proxy.turns.claim_timing import DEFAULT_TIMING, ClaimTiming
from openai_dify_proxy.turns.claims import ConversationClaim
from openai_dify_proxy.turns.locks import Lock

SECRET_CHECK_SECONDS = 60.0
"""How often the secret is compared with the one in the state, which may have been lost and created again."""


class Conversations:
    """Finds and claims the conversation of each turn.

    ``ttl`` is in seconds; ``now`` is a clock in seconds since the epoch. While the state is unreachable, turns start
    new conversations instead of failing.
    """

    def __init__(
        self, store: GuardedStore, *, ttl: float, now: Callable[[], float], timing: ClaimTiming = DEFAULT_TIMING
    ) -> None:
        self.store = store
        self.ttl = ttl
        self.now = now
        self.timing = timing
        self._secret: bytes | None = None
        self._checked = 0.0

    async def secret(self) -> bytes | None:
        """Return the key of all hashes, which processes with the same state share; None if it is unreachable."""
        if self._secret is None or self.now() - self._checked > SECRET_CHECK_SECONDS:
            own = self._secret or token_bytes(32)
            results = await self.store.run(Add("secret", own))
            if results is not None:
                self._secret = results[0] or own
                self._checked = self.now()
        return self._secret

    def claim(self, app: App, request: TurnRequest, lock: Lock | None) -> ConversationClaim:
        """Return a claim without a conversation. It takes over ``lock``."""
        locks = [] if lock is None else [lock.transfer()]
        return ConversationClaim(self.store, self.ttl, self.now, self.timing, app, request, locks)

    async def find(
        self,
        claim: ConversationClaim,
        caller: Caller,
        app: App,
        profile: AppProfile,
        request: TurnRequest,
        *,
        secret: bytes | None,
    ) -> None:
        """Let ``claim`` take the conversation that the turn continues, if any. ``secret`` is that of ``secret()``.

        Raises InvalidRequest for an id that cannot be Dify's, and ConversationTaken while another turn runs in the
        conversation; it may then be called again.
        """
        if not profile.converses or request.stateless:
            return
        named = named_conversation(request)
        if app.conversations == "last-message":
            claim.skip_history()
        if secret is not None:
            claim.fingerprint(secret, caller, profile)
        if named is not None:
            await claim.take_named(named)
        elif app.conversations == "auto" and claim.has_history:
            await claim.take_by_history()
