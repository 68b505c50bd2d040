"""``GET /health`` and ``GET /ready``, which need no key and tell nothing that does."""

from __future__ import annotations

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.errors import error_response
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.errors import UpstreamUnreachable


class HealthStatus(Struct):
    status: str


class ReadyStatus(Struct):
    """``state_faults`` counts the times that this process had to do without its state: conversations then begin anew,
    which is no reason to send it no requests."""

    status: str
    state_faults: int


async def health(_request: Request) -> Response:
    """The process is alive."""
    return json_response(HealthStatus("ok"))


async def ready(request: Request) -> Response:
    """Dify can be reached; 503 otherwise."""
    services = services_of(request)
    problem = await services.readiness.problem()
    if problem is not None:
        return error_response(UpstreamUnreachable(problem))
    return json_response(ReadyStatus("ready", services.store.faults))
