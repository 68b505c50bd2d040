"""``GET /health`` and ``GET /ready``. They need no key and reveal nothing that does."""

from __future__ import annotations

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.errors import error_response
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.errors import ShuttingDown, UpstreamUnreachable
from openai_dify_proxy.turns.admission.gate import GateStatus


class HealthStatus(Struct):
    status: str


class ReadyStatus(Struct):
    """The body of a successful ``GET /ready``: ``status`` is ``ready``, or ``busy`` if a Dify answers only turns.

    ``state_faults`` counts how often the state was unavailable to this process. Such requests start new conversations,
    so the server stays ready. ``dify`` has the limit of each Dify that has one, and its turns in this process.
    """

    status: str
    state_faults: int
    dify: list[GateStatus]


async def health(_request: Request) -> Response:
    """Answer 200 while the process is alive."""
    return json_response(HealthStatus("ok"))


async def ready(request: Request) -> Response:
    """Answer 200 if Dify can be reached or is at work, else 503. A server that stops is not ready."""
    services = services_of(request)
    if services.readiness.draining:
        return error_response(ShuttingDown("The server is shutting down."))
    problem = await services.readiness.problem()
    if problem is not None:
        return error_response(UpstreamUnreachable(problem))
    readiness = services.readiness
    return json_response(ReadyStatus("busy" if readiness.busy else "ready", services.store.faults, readiness.gates))
