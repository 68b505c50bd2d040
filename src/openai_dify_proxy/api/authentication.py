"""Who sends a request: client keys, Dify keys in requests, and the guard of a loopback server."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Container
from functools import lru_cache

from starlette.requests import Request

from openai_dify_proxy.errors import (
    AuthenticationFailed,
    PermissionDenied,
    UnsupportedMediaType,
)
from openai_dify_proxy.settings import Settings, is_loopback
from openai_dify_proxy.turns.callers import ANONYMOUS, Caller, caller_of_dify_key, caller_of_key

DIFY_KEY_HEADERS = ("dify_api_key", "dify-api-key", "x-dify-api-key")
CLIENT_KEY_HEADERS = ("api-key", "x-api-key")
DIFY_KEY_PREFIX = "app-"


class Authenticator:
    """Finds the caller of a request, and rejects requests without the right to be served.

    A Dify key in the request authorises only the Dify call made with that very key. Requests that spend a credential of
    the server's need a client key where client keys are set. Where none are, a loopback server rejects web pages.
    """

    def __init__(self, settings: Settings) -> None:
        keys = [(key.get_secret_value(), end_user) for key, end_user in settings.client_keys]
        self._keys = [key.encode() for key, _ in keys]
        self._callers = {key.encode(): caller_of_key(key, end_user) for key, end_user in keys}
        self._passthrough = settings.passthrough_keys
        self._guard_loopback = not self._keys and is_loopback(settings.host) and not settings.allow_anonymous
        self._origins = frozenset(settings.cors_origins)

    def admit(self, request: Request) -> Caller:
        """Return the caller of a request. Raises AuthenticationFailed or PermissionDenied."""
        headers = request.headers
        bearer = _bearer(request)
        dify_key = next((headers[name] for name in DIFY_KEY_HEADERS if headers.get(name)), "")
        client = self._client_of(request, bearer)
        if not dify_key and client is None and bearer.startswith(DIFY_KEY_PREFIX):
            dify_key = bearer
        if dify_key:
            if self._passthrough:
                return caller_of_dify_key(dify_key)
            if client is not None or not self._keys:
                raise PermissionDenied("This server takes no Dify keys from requests. Leave the key out.")
        return self._admit_client(request, client, bearer, takes_forms=False)

    def admit_spender(self, request: Request) -> Caller:
        """Return the caller of a request that spends a credential of the server's; a Dify key in it opens nothing.

        Raises AuthenticationFailed or PermissionDenied.
        """
        bearer = _bearer(request)
        return self._admit_client(request, self._client_of(request, bearer), bearer, takes_forms=True)

    def _admit_client(self, request: Request, client: Caller | None, bearer: str, *, takes_forms: bool) -> Caller:
        if client is not None:
            return client
        if self._keys:
            raise AuthenticationFailed(
                "This server needs an API key: send one of its keys as 'Authorization: Bearer <key>'."
                if not bearer
                else "The API key is not one of this server's."
            )
        if self._guard_loopback:
            _refuse_web_pages(request, self._origins, takes_forms=takes_forms)
        return ANONYMOUS

    def _client_of(self, request: Request, bearer: str) -> Caller | None:
        """Compare every key with every candidate, so that the time taken reveals nothing."""
        if not self._keys:
            return None
        candidates = [bearer, *(request.headers.get(name, "") for name in CLIENT_KEY_HEADERS)]
        found = None
        for candidate in candidates:
            shown = candidate.encode()
            for key in self._keys:
                if hmac.compare_digest(shown, key):
                    found = self._callers[key]
        return found


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _refuse_web_pages(request: Request, origins: Container[str], *, takes_forms: bool) -> None:
    """A page in the operator's browser can reach a loopback server, but not with JSON, nor under a loopback name.

    A form, or nothing, it can send anywhere, but not without naming its origin. The official JavaScript client sends
    nothing, and so no type of it, where there is nothing to say.
    """
    host = request.headers.get("host", "").rsplit("@", 1)[-1]
    name = host[1 : host.find("]")] if host.startswith("[") else host.rpartition(":")[0] or host
    if not _is_loopback_name(name):
        raise PermissionDenied(
            "Without API_KEYS this server answers only under a loopback name such as localhost. "
            "Set API_KEYS (or ALLOW_ANONYMOUS=true) to serve it under another.",
            code="host_not_allowed",
        )
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        origin = request.headers.get("origin")
        empty = "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0"
        form = takes_forms and kind == "multipart/form-data"
        if (form or (empty and not kind)) and (origin is None or origin in origins):
            return
        if kind != "application/json":
            raise UnsupportedMediaType("Send the body as JSON, with the header 'Content-Type: application/json'.")


@lru_cache(maxsize=64)
def _is_loopback_name(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
