"""``GET /console/keys``: the client keys for operators, never with their hashes."""

from __future__ import annotations

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.services import services_of
from openai_dify_proxy.keys.client_key import ClientKey
from openai_dify_proxy.keys.limits import KeyLimits


class ShownKey(Struct, kw_only=True):
    """A client key, with the fields of ``ClientKey``."""

    id: str
    name: str
    prefix: str
    label: str
    models: tuple[str, ...] | None
    end_user: str | None
    limits: KeyLimits
    admin: bool
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class ShownKeys(Struct):
    data: list[ShownKey]


async def list_keys(request: Request) -> Response:
    """Return all client keys to an operator."""
    authenticator = services_of(request).authenticator
    authenticator.admit_admin(request)
    return json_response(ShownKeys([_shown(key) for key in authenticator.keys]))


def _shown(key: ClientKey) -> ShownKey:
    return ShownKey(**{name: getattr(key, name) for name in ShownKey.__struct_fields__})
