"""``/console/session``: the sign-in of the console, for the tab that asks.

A session is a cookie that scripts cannot read. Each tab has one of its own, so that two tabs can have different keys.
"""

from __future__ import annotations

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from openai_dify_proxy.api.authentication import session_cookie
from openai_dify_proxy.api.bodies import json_response
from openai_dify_proxy.api.services import Services, services_of
from openai_dify_proxy.errors import AuthenticationFailed
from openai_dify_proxy.keys.sessions import SESSION_SECONDS
from openai_dify_proxy.turns.callers import ANONYMOUS, Caller


class SessionStatus(Struct, kw_only=True):
    """The identity that is signed in to the tab.

    ``needs_key`` says whether the server requires a key, ``takes_dify_keys`` whether it accepts keys of Dify apps, and
    ``has_dify`` and ``has_images`` whether a Dify and models of pictures are configured.
    """

    needs_key: bool
    signed_in: bool
    name: str | None
    admin: bool
    takes_dify_keys: bool
    has_dify: bool
    has_images: bool


async def show_session(request: Request) -> Response:
    """Return the identity that is signed in to the tab. Needs no key."""
    services = services_of(request)
    services.authenticator.session_secret = await services.secret()
    try:
        caller = services.authenticator.admit(request)
    except AuthenticationFailed:
        caller = None
    return _status(services, caller)


async def begin_session(request: Request) -> Response:
    """Sign in with the client key in the header ``Authorization``. Raises AuthenticationFailed."""
    services = services_of(request)
    name = session_cookie(request)
    services.authenticator.session_secret = await services.secret()
    caller, cookie = services.authenticator.begin_session(request)
    response = _status(services, caller)
    secure = request.url.scheme == "https"
    response.set_cookie(name, cookie, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure)
    return response


async def end_session(request: Request) -> Response:
    """Sign out."""
    response = Response(status_code=204)
    response.delete_cookie(session_cookie(request), httponly=True, samesite="strict")
    return response


def _status(services: Services, caller: Caller | None) -> Response:
    return json_response(
        SessionStatus(
            needs_key=services.authenticator.needs_key,
            signed_in=caller is not None and caller is not ANONYMOUS,
            name=None if caller is None else caller.name,
            admin=caller is not None and services.authenticator.is_admin(caller),
            takes_dify_keys=services.authenticator.takes_dify_keys,
            has_dify=bool(services.apps.urls),
            has_images=services.images.available,
        )
    )
