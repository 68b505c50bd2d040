"""The limits of client keys, for the routes that generate something."""

from __future__ import annotations

from openai_dify_proxy.api.responder import Responder
from openai_dify_proxy.api.services import Services
from openai_dify_proxy.keys.limits import NO_LIMITS
from openai_dify_proxy.limits.limiter import has_limits
from openai_dify_proxy.turns.callers import Caller

RATE_LIMIT_HEADERS = tuple(
    f"x-ratelimit-{name}-{unit}" for name in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
)


async def enforce_limits(responder: Responder, services: Services, caller: Caller) -> None:
    """Count a valid request against the limits of its key, before its turn waits for anything.

    The response says what is left, with OpenAI's headers. Raises RateLimited and QuotaExceeded.
    """
    limits = caller.limits
    if limits is NO_LIMITS or not has_limits(limits):
        return
    verdict = await services.limiter.check(caller.id, limits)
    if verdict.headers:
        responder.add_headers.append(lambda: verdict.headers)
    if verdict.error is not None:
        raise verdict.error
