"""``GET /console/traffic``: the traffic of this process, for operators."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.services import services_of


async def show_traffic(request: Request) -> Response:
    """Return the traffic of this process to an operator."""
    services = services_of(request)
    services.authenticator.admit_admin(request, routine=True)
    assert services.traffic is not None, "the route is served only with the console"
    return json_response(await services.traffic.report(services))
