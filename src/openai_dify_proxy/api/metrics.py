"""``GET /metrics``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.services import services_of


async def metrics(request: Request) -> Response:
    """Return the metrics of all processes. Needs an admin key, unless ``METRICS_OPEN``."""
    services = services_of(request)
    if not services.metrics.open:
        services.authenticator.admit_admin(request, routine=True)
    await services.readiness.check()
    exposition = await services.metrics.exposition(services)
    body, content_type = exposition.render(request.headers.get("accept", ""))
    return Response(body, 200, {"content-type": content_type})
