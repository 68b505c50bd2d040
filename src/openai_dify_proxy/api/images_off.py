"""The image routes of a server that makes no pictures."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.errors import ImagesOff, NotFound


async def refuse_images(request: Request) -> Response:
    services_of(request).authenticator.admit_spender(request)
    raise ImagesOff


async def refuse_picture(_request: Request) -> Response:
    raise NotFound("There is no such picture.")
