"""``GET /health`` and ``GET /ready``. They need no key and reveal nothing that does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.errors import error_response
from openai_dify_proxy.api.services import Services, services_of
from openai_dify_proxy.api.storage_check import STATE_UNWRITABLE
from openai_dify_proxy.errors import ShuttingDown, StateUnreachable
from openai_dify_proxy.turns.admission.gate import GateStatus


class HealthStatus(Struct):
    status: str


class ReadyStatus(Struct):
    """The body of a successful ``GET /ready``.

    ``status`` is ``ready``, ``busy`` if a Dify answers only turns, or ``degraded`` if other services have the faults in
    ``problems``. ``state_faults`` counts how often the state was unavailable to this process. ``dify`` has the limit of
    each Dify that has one, and its turns in this process.
    """

    status: Literal["ready", "busy", "degraded"]
    problems: list[str]
    state_faults: int
    dify: list[GateStatus]


async def health(_request: Request) -> Response:
    """Answer 200 while the process is alive."""
    return json_response(HealthStatus("ok"))


async def ready(request: Request) -> Response:
    """Answer 200 unless this process is at fault: it shuts down, or its state or disk cannot be written.

    Faults of others are problems in the body, since taking this process out of service would mend none of them.
    """
    services = services_of(request)
    if services.readiness.draining:
        return error_response(ShuttingDown("The server is shutting down."))
    fault = await services.storage.fault()
    if fault is not None:
        return error_response(StateUnreachable(fault))
    readiness = services.readiness
    await readiness.check()
    problems = [problem async for problem in _problems(services)]
    status: Literal["ready", "busy", "degraded"] = "degraded" if problems else "busy" if readiness.busy else "ready"
    return json_response(ReadyStatus(status, problems, services.store.faults, readiness.gates))


async def _problems(services: Services) -> AsyncIterator[str]:
    """Yield the faults of other services, without addresses and names."""
    if not services.apps.urls:
        yield "No Dify is configured."
    for problem in dict.fromkeys(services.readiness.problems.values()):
        if problem is not None:
            yield problem
    refused = sum(services.profiles.usable(app.dify) is False for app in services.apps.all.values())
    if refused:
        yield f"Dify refuses the keys of {refused} of {len(services.apps.all)} apps."
    if not await services.storage.writes_state():
        yield STATE_UNWRITABLE
