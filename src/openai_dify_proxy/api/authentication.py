"""Authentication: client keys, Dify keys in requests, and the guard of a loopback server against web pages."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Container, Mapping
from functools import lru_cache

from starlette.requests import Request

from openai_dify_proxy.api.headers import client_address, single_values
from openai_dify_proxy.api.responder import record_of
from openai_dify_proxy.errors import (
    AuthenticationFailed,
    InvalidRequest,
    PermissionDenied,
    ProxyError,
    UnsupportedMediaType,
)
from openai_dify_proxy.keys.audit import AuditLog
from openai_dify_proxy.keys.client_key import ClientKey
from openai_dify_proxy.keys.configured import configured_keys
from openai_dify_proxy.keys.directory import DIFY_KEY_PREFIX, KeyDirectory, hash_of_received
from openai_dify_proxy.keys.sessions import SESSION_SECONDS, read_session, sign_session
from openai_dify_proxy.keys.wrong_keys import WrongKeys
from openai_dify_proxy.settings import Settings, is_loopback
from openai_dify_proxy.state import Store
from openai_dify_proxy.turns.callers import ANONYMOUS, Caller, caller_of_client_key, caller_of_dify_key

DIFY_KEY_HEADERS = (b"dify_api_key", b"dify-api-key", b"x-dify-api-key")
CLIENT_KEY_HEADERS = (b"api-key", b"x-api-key")
MAX_DIFY_KEY = 256
"""Characters in a Dify key that is sent to Dify and remembered; Dify's own have 28."""

_NO_BEARER = "The Authorization header must begin with 'Bearer '. Send 'Authorization: Bearer <key>'."

_NO_KEY = "This server requires an API key. Send one of its keys as 'Authorization: Bearer <key>'."

_AUTHORIZATION = b"authorization"
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^][:@/\s]+))(?::[0-9]*)?")
"""A Host header: an IPv6 address in brackets, or a name or an IPv4 address; and a port."""

_CONSOLE_TAB = b"x-console-tab"
_TAB = re.compile(r"[0-9]{1,32}")
_OTHER_CREDENTIALS = frozenset({*CLIENT_KEY_HEADERS, _CONSOLE_TAB})
CREDENTIALS = frozenset({*DIFY_KEY_HEADERS, *_OTHER_CREDENTIALS})
"""The headers with credentials, besides ``Authorization``."""

_CREDENTIALS = CREDENTIALS | {_AUTHORIZATION}

MAX_KNOWN = 4096
MAX_KNOWN_BYTES = 512
"""Callers that are remembered by their ``Authorization`` header, and the bytes of its value."""


class Authenticator:
    """Identifies the caller of a request, and rejects unauthorized requests.

    A Dify key in the request authorizes only the Dify call made with that key. A request that spends one of the
    server's credentials needs a client key if client keys are set. If none are, a loopback server rejects web pages.
    """

    def __init__(
        self,
        settings: Settings,
        keys: KeyDirectory[Caller],
        audit: AuditLog,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._audit = audit
        self._wrong_keys = WrongKeys(clock)
        self._passthrough = settings.passthrough_keys
        self._guard_loopback = is_loopback(settings.host) and not settings.allow_anonymous
        self._origins = frozenset(settings.cors_origins)
        self._known: dict[bytes, Caller] = {}
        """Callers by the raw value of their ``Authorization`` header, the only credential of their requests."""
        self._known_version: object | None = None
        self.session_secret: bytes | None = None
        """Signs the sessions of the console; None while it is unknown."""

    def admit(self, request: Request, *, takes_forms: bool = False) -> Caller:
        """Return the caller of a request. ``takes_forms`` says whether its body may be a form.

        Raises AuthenticationFailed, PermissionDenied, UnsupportedMediaType, and InvalidRequest for two different values
        of a header that holds a key.
        """
        caller = self._identify(request, takes_forms=takes_forms)
        _note(request, caller)
        return caller

    def admit_known(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Return the caller of a JSON request, if ``admit`` has found it for the same ``Authorization`` header before.

        ``headers`` has each header once. None says nothing about the request: ``admit`` decides then.
        """
        caller = self._known.get(headers.get(_AUTHORIZATION, b""))
        if caller is None or self._known_version is not self._keys.version or not CREDENTIALS.isdisjoint(headers):
            return None
        if caller is not ANONYMOUS or not self._guard_loopback:
            return caller
        # ``_reject_web_pages`` accepts POST requests with JSON bodies for loopback hosts.
        accepted = headers.get(b"content-type") == b"application/json" and _is_loopback_host(headers.get(b"host", b""))
        return caller if accepted else None

    def _remember(self, request: Request, credentials: Mapping[bytes, str], caller: Caller) -> None:
        """Let ``admit_known`` find the caller, until the keys change."""
        sent = [value for name, value in request.scope["headers"] if name == _AUTHORIZATION]
        raw = sent[0] if sent else b""
        other = len(sent) > 1 or credentials.keys() - {_AUTHORIZATION}  # the first of two may be empty
        if other or caller.dify_key is not None or len(raw) > MAX_KNOWN_BYTES:
            return
        version = self._keys.version
        if version is not self._known_version or len(self._known) >= MAX_KNOWN:
            self._known.clear()
            self._known_version = version
        if version is not None:
            self._known[raw] = caller

    def _identify(self, request: Request, *, takes_forms: bool) -> Caller:
        credentials = _credentials(request)
        bearer = _bearer(credentials)
        dify_key = _dify_key(credentials)
        client = self._client_of(request, credentials, bearer)
        if not dify_key and client is None and bearer.startswith(DIFY_KEY_PREFIX):
            dify_key = bearer
        if dify_key:
            if self._passthrough:
                if len(dify_key) > MAX_DIFY_KEY:
                    raise AuthenticationFailed(
                        f"The Dify key is longer than {MAX_DIFY_KEY} characters. Copy it from the app's page in Dify."
                    )
                return caller_of_dify_key(dify_key)
            if client is not None or not self._keys.closed:
                raise PermissionDenied("This server accepts no Dify keys in requests. Remove the key.")
        caller = self._admit_client(request, client, credentials, takes_forms=takes_forms)
        self._remember(request, credentials, caller)
        return caller

    def admit_spender(self, request: Request) -> Caller:
        """Return the caller of a request that spends one of the server's credentials. A Dify key does not authorize it.

        Raises the same errors as ``admit``.
        """
        credentials = _credentials(request)
        bearer = _bearer(credentials)
        caller = self._admit_client(
            request, self._client_of(request, credentials, bearer), credentials, takes_forms=True
        )
        _note(request, caller)
        return caller

    def admit_admin(self, request: Request, *, routine: bool = False) -> Caller:
        """Return the caller of a request to a route of operators, which needs an admin key.

        The audit log records the call, unless it is ``routine``, as regular reads of metrics are. Raises
        PermissionDenied for the keys of other callers, and otherwise the same errors as ``admit``.
        """
        caller = self.admit_spender(request)
        allowed = self.is_admin(caller)
        if not (allowed and routine):
            what = f"{request.method} {request.url.path}"
            by = caller.name or caller.id
            self._audit.record("admin_call" if allowed else "admin_call_denied", by, call=what, caller=caller.id)
        if not allowed:
            raise PermissionDenied("This route needs an admin key.", code="admin_key_required")
        return caller

    def _admit_client(
        self, request: Request, client: Caller | None, credentials: Mapping[bytes, str], *, takes_forms: bool
    ) -> Caller:
        if client is not None:
            return client
        if self._keys.closed:
            raise self._rejection(request, credentials)
        if self._guard_loopback:
            _reject_web_pages(request, self._origins, takes_forms=takes_forms)
        return ANONYMOUS

    def _rejection(self, request: Request, credentials: Mapping[bytes, str]) -> ProxyError:
        """Return the error for a request without a valid key, and count a wrong one."""
        if not self._keys.known:
            return self._keys.unknown()
        keys = _candidates(credentials, _bearer(credentials))
        if not keys:
            scheme = _AUTHORIZATION in credentials
            return AuthenticationFailed(_NO_BEARER if scheme else _NO_KEY)
        reasons = [reason for key in keys if (reason := self._keys.why_not(key)) is not None]
        if reasons:
            return AuthenticationFailed(f"The API key {reasons[0]}. Ask the operator of this server for a new one.")
        for key in keys:
            self._wrong_keys.count(client_address(request), key)
        return AuthenticationFailed("The API key is invalid. Send one of this server's keys.")

    def begin_session(self, request: Request) -> tuple[Caller, str]:
        """Return the caller of the client key in the request, and the value of a cookie that stands for the key.

        Raises AuthenticationFailed for a wrong key, and StateUnreachable while sessions cannot be signed.
        """
        credentials = _credentials(request)
        key = _bearer(credentials)
        caller = self._keys.find(key)
        if caller is None:
            raise self._rejection(request, credentials)
        if self.session_secret is None:
            raise self._keys.unknown()
        return caller, sign_session(self.session_secret, hash_of_received(key), int(time.time()) + SESSION_SECONDS)

    @property
    def keys(self) -> tuple[ClientKey, ...]:
        """All client keys, without their secrets."""
        return self._keys.keys

    @property
    def needs_key(self) -> bool:
        """Whether requests without a key are rejected."""
        return self._keys.closed

    @property
    def takes_dify_keys(self) -> bool:
        """Whether requests may bring keys of Dify apps."""
        return self._passthrough

    def is_admin(self, caller: Caller) -> bool:
        """Return whether the caller may use the routes of operators.

        A server that serves only its own machine, without client keys, admits every program of that machine.
        """
        return caller.admin or (caller is ANONYMOUS and self._guard_loopback)

    def _client_of(self, request: Request, credentials: Mapping[bytes, str], bearer: str) -> Caller | None:
        """Return the caller of the client key in the request, or of its session in the console, or None."""
        found = self._keys.find(bearer) if bearer else None
        if found is not None or credentials.keys().isdisjoint(_OTHER_CREDENTIALS):
            return found
        callers = (self._keys.find(credentials[name]) for name in CLIENT_KEY_HEADERS if name in credentials)
        found = next((caller for caller in callers if caller is not None), None)
        return self._client_of_session(request) if found is None and _CONSOLE_TAB in credentials else found

    def _client_of_session(self, request: Request) -> Caller | None:
        """Return the caller of a session.

        Its header cannot be sent by another origin without a preflight, which CORS denies. Browsers send a cookie of
        ``SameSite=Strict`` to all ports of a host, so the origin counts too.
        """
        cookie = request.cookies.get(session_cookie(request))
        origin = request.headers.get("origin")
        if self.session_secret is None or cookie is None or not _is_own(origin, request):
            return None
        key_hash = read_session(self.session_secret, cookie, time.time())
        return None if key_hash is None else self._keys.find_hash(key_hash)


def key_directory(
    settings: Settings, store: Store | None, *, clock: Callable[[], float] = time.time
) -> KeyDirectory[Caller]:
    """Return the keys that a server with these settings accepts. ``store`` has those of the command line, if any.

    ``clock`` returns seconds since the epoch.
    """
    configured = configured_keys(settings)
    ids = {key.id for key in configured}

    def make(key: ClientKey) -> Caller:
        return caller_of_client_key(key, configured=key.id in ids)

    return KeyDirectory(configured, store, make, max_age=settings.keys_max_age, now=clock)


def session_cookie(request: Request) -> str:
    """Return the name of the cookie of the console's tab that sent the request. Raises InvalidRequest."""
    tab = request.headers.get("x-console-tab", "")
    if not _TAB.fullmatch(tab):
        raise InvalidRequest("The header 'X-Console-Tab' must be a number.", param="X-Console-Tab")
    return f"console-{tab}"


def _is_own(origin: str | None, request: Request) -> bool:
    """Return whether a request comes from a page of this server. Browsers send no origin with their own GET."""
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


def _note(request: Request, caller: Caller) -> None:
    """Let the request's log line name the caller."""
    record = record_of(request.scope)
    record.caller = caller.id
    record.label = caller.name


def _candidates(credentials: Mapping[bytes, str], bearer: str) -> list[str]:
    """Return everything in the request that may be a client key."""
    keys = [credentials[name] for name in CLIENT_KEY_HEADERS if name in credentials]
    return [bearer, *keys] if bearer else keys


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
    if credentials.keys().isdisjoint(DIFY_KEY_HEADERS):
        return ""  # the fast path
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
    if not _is_loopback_host(request.headers.get("host", "").encode("latin-1")):
        raise PermissionDenied(
            "Without API_KEYS this server accepts only loopback host names such as localhost. "
            "Create a key with 'openai-dify-proxy keys create', set API_KEYS, or set ALLOW_ANONYMOUS=true.",
            code="host_not_allowed",
        )
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        origin = request.headers.get("origin")
        empty = "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0"
        form = takes_forms and kind == "multipart/form-data"
        # The page of the console is of this server's own origin, since the host name is a loopback one.
        if (form or (empty and not kind)) and (_is_own(origin, request) or origin in origins):
            return
        if kind != "application/json":
            raise UnsupportedMediaType("Send the body as JSON, with the header 'Content-Type: application/json'.")


@lru_cache(maxsize=64)
def _is_loopback_host(value: bytes) -> bool:
    host = _HOST.fullmatch(value.decode("latin-1"))
    return host is not None and _is_loopback_name(host[1] or host[2])


@lru_cache(maxsize=64)
def _is_loopback_name(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
