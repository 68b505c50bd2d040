"""Authentication: client keys, Dify keys in requests, and the guard of a loopback server against web pages."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Container, Mapping
from functools import lru_cache

from starlette.requests import Request

from openai_dify_proxy.api.headers import single_values
from openai_dify_proxy.api.responder import record_of
from openai_dify_proxy.errors import (
    AuthenticationFailed,
    InvalidRequest,
    PermissionDenied,
    UnsupportedMediaType,
)
from openai_dify_proxy.settings import Settings, is_loopback
from openai_dify_proxy.turns.callers import ANONYMOUS, Caller, caller_of_dify_key, caller_of_key

DIFY_KEY_HEADERS = (b"dify_api_key", b"dify-api-key", b"x-dify-api-key")
CLIENT_KEY_HEADERS = (b"api-key", b"x-api-key")
DIFY_KEY_PREFIX = "app-"
MAX_DIFY_KEY = 256
"""Characters in a Dify key that is sent to Dify and remembered; Dify's own have 28."""

_NO_BEARER = "The Authorization header must begin with 'Bearer '. Send 'Authorization: Bearer <key>'."

_AUTHORIZATION = b"authorization"
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^][:@/\s]+))(?::[0-9]*)?")
"""A Host header: an IPv6 address in brackets, or a name or an IPv4 address; and a port."""

_CREDENTIALS = frozenset({_AUTHORIZATION, *DIFY_KEY_HEADERS, *CLIENT_KEY_HEADERS})


class Authenticator:
    """Identifies the caller of a request, and rejects unauthorized requests.

    A Dify key in the request authorizes only the Dify call made with that key. A request that spends one of the
    server's credentials needs a client key if client keys are set. If none are, a loopback server rejects web pages.
    """

    def __init__(self, settings: Settings) -> None:
        keys = [(key.get_secret_value(), end_user) for key, end_user in settings.client_keys]
        self._keys = [key.encode() for key, _ in keys]
        self._callers = {key.encode(): caller_of_key(key, end_user) for key, end_user in keys}
        self._passthrough = settings.passthrough_keys
        self._guard_loopback = not self._keys and is_loopback(settings.host) and not settings.allow_anonymous
        self._origins = frozenset(settings.cors_origins)

    def admit(self, request: Request, *, takes_forms: bool = False) -> Caller:
        """Return the caller of a request. ``takes_forms`` says whether its body may be a form.

        Raises AuthenticationFailed, PermissionDenied, UnsupportedMediaType, and InvalidRequest for two different values
        of a header that holds a key.
        """
        caller = self._identify(request, takes_forms=takes_forms)
        record_of(request.scope).caller = caller.id
        return caller

    def _identify(self, request: Request, *, takes_forms: bool) -> Caller:
        credentials = _credentials(request)
        bearer = _bearer(credentials)
        dify_key = _dify_key(credentials)
        client = self._client_of(credentials, bearer)
        if not dify_key and client is None and bearer.startswith(DIFY_KEY_PREFIX):
            dify_key = bearer
        if dify_key:
            if self._passthrough:
                if len(dify_key) > MAX_DIFY_KEY:
                    raise AuthenticationFailed(
                        f"The Dify key is longer than {MAX_DIFY_KEY} characters. Copy it from the app's page in Dify."
                    )
                return caller_of_dify_key(dify_key)
            if client is not None or not self._keys:
                raise PermissionDenied("This server accepts no Dify keys in requests. Remove the key.")
        return self._admit_client(request, client, bearer, takes_forms=takes_forms)

    def admit_spender(self, request: Request) -> Caller:
        """Return the caller of a request that spends one of the server's credentials. A Dify key does not authorize it.

        Raises the same errors as ``admit``.
        """
        credentials = _credentials(request)
        bearer = _bearer(credentials)
        caller = self._admit_client(request, self._client_of(credentials, bearer), bearer, takes_forms=True)
        record_of(request.scope).caller = caller.id
        return caller

    def admit_admin(self, request: Request) -> Caller:
        """Return the caller of a request to a route of operators, which needs an admin key.

        A server that serves only its own machine, without client keys, admits every program of that machine. Raises
        PermissionDenied for the keys of other callers, and otherwise the same errors as ``admit``.
        """
        caller = self.admit_spender(request)
        if not caller.admin and not (caller is ANONYMOUS and self._guard_loopback):
            raise PermissionDenied("This route needs an admin key.", code="admin_key_required")
        return caller

    def _admit_client(self, request: Request, client: Caller | None, bearer: str, *, takes_forms: bool) -> Caller:
        if client is not None:
            return client
        if self._keys:
            raise AuthenticationFailed(
                "The API key is invalid. Send one of this server's keys."
                if bearer
                else _NO_BEARER
                if request.headers.get("authorization")
                else "This server requires an API key. Send one of its keys as 'Authorization: Bearer <key>'."
            )
        if self._guard_loopback:
            _reject_web_pages(request, self._origins, takes_forms=takes_forms)
        return ANONYMOUS

    def _client_of(self, credentials: Mapping[bytes, str], bearer: str) -> Caller | None:
        """Return the caller of the client key in the request, or None.

        It compares every key with every candidate, so that the time taken reveals nothing.
        """
        if not self._keys:
            return None
        candidates = [bearer, *(credentials.get(name, "") for name in CLIENT_KEY_HEADERS)]
        found = None
        for candidate in candidates:
            received = candidate.encode()
            for key in self._keys:
                if hmac.compare_digest(received, key):
                    found = self._callers[key]
        return found


def _credentials(request: Request) -> dict[bytes, str]:
    return single_values(request.scope["headers"], _CREDENTIALS.__contains__)


def _bearer(credentials: Mapping[bytes, str]) -> str:
    """Return the bearer token, or an empty string. Raises AuthenticationFailed for a Dify key without ``Bearer``."""
    scheme, _, token = credentials.get(_AUTHORIZATION, "").partition(" ")
    if scheme.startswith(DIFY_KEY_PREFIX):
        raise AuthenticationFailed(_NO_BEARER)
    return token.strip() if scheme.lower() == "bearer" else ""


def _dify_key(credentials: Mapping[bytes, str]) -> str:
    """Return the Dify key of the headers for Dify keys, or an empty string. Raises InvalidRequest for two keys."""
    keys = {name: _without_scheme(credentials[name]) for name in DIFY_KEY_HEADERS if name in credentials}
    if len(set(keys.values())) > 1:
        names = [name.decode("latin-1") for name in keys]
        raise InvalidRequest(
            f"The headers {' and '.join(names)} have different values. Send one of them.", param=names[0]
        )
    return next(iter(keys.values()), "")


def _without_scheme(key: str) -> str:
    """Return the key alone: people paste ``Bearer app-…`` into the headers for Dify keys as well."""
    return key[7:].strip() if key[:7].lower() == "bearer " else key


def _reject_web_pages(request: Request, origins: Container[str], *, takes_forms: bool) -> None:
    """Reject requests that a web page in the operator's browser can send to a loopback server.

    A page cannot send JSON to another origin, and after DNS rebinding it sends its own host name. It can send a form or
    an empty body, but only with an ``Origin`` header. The official JavaScript client sends an empty body without a
    content type where a request has no fields.
    """
    host = _HOST.fullmatch(request.headers.get("host", ""))
    if host is None or not _is_loopback_name(host[1] or host[2]):
        raise PermissionDenied(
            "Without API_KEYS this server accepts only loopback host names such as localhost. "
            "Set API_KEYS or ALLOW_ANONYMOUS=true to use another name.",
            code="host_not_allowed",
        )
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        origin = request.headers.get("origin")
        empty = "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0"
        form = takes_forms and kind == "multipart/form-data"
        own = f"{request.url.scheme}://{request.headers['host']}"  # the console, since the name is a loopback one
        if (form or (empty and not kind)) and (origin is None or origin == own or origin in origins):
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
