"""What handlers need of a request: who sends it, and its body as a struct."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Container
from functools import lru_cache
from typing import TypeVar

from msgspec import ValidationError
from msgspec.json import Decoder
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from openai_dify_proxy.errors import (
    AuthenticationFailed,
    BodyTooLarge,
    InvalidRequest,
    PermissionDenied,
    UnsupportedMediaType,
)
from openai_dify_proxy.settings import Settings, is_loopback
from openai_dify_proxy.turns.callers import ANONYMOUS, Caller, caller_of_dify_key, caller_of_key
from openai_dify_proxy.turns.turn import ClientGone
from openai_dify_proxy.wire.reading import UNREADABLE

_T = TypeVar("_T")

DIFY_KEY_HEADERS = ("dify_api_key", "dify-api-key", "x-dify-api-key")
CLIENT_KEY_HEADERS = ("api-key", "x-api-key")
DIFY_KEY_PREFIX = "app-"


class Authenticator:
    """Decides who may ask what.

    A Dify key in the request authorises only the Dify call made with that very key. Whatever spends a key of the
    server's needs a client key where client keys are set; where none are, a loopback server still answers no web page.
    """

    def __init__(self, settings: Settings) -> None:
        keys = [(key.get_secret_value(), end_user) for key, end_user in settings.client_keys]
        self._keys = [key.encode() for key, _ in keys]
        self._callers = {key.encode(): caller_of_key(key, end_user) for key, end_user in keys}
        self._passthrough = settings.passthrough_keys
        self._guard_loopback = not self._keys and is_loopback(settings.host) and not settings.allow_anonymous
        self._origins = frozenset(settings.cors_origins)
        self._limit = settings.max_body_bytes

    def admit(self, request: Request) -> Caller:
        """The caller of a request. Raises AuthenticationFailed or PermissionDenied."""
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
        """The caller of a request that spends what only the server holds: a Dify key in it opens nothing.

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

    async def read(self, request: Request, decoder: Decoder[_T]) -> _T:
        """The body as a struct. Raises InvalidRequest with the field's path, or BodyTooLarge."""
        return read_json(await self.read_body(request), decoder)

    async def read_form(self, request: Request, *, max_files: int, max_fields: int) -> FormData:
        """A form of at most so many parts. Raises InvalidRequest, or BodyTooLarge."""
        body = await self.read_body(request)

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            return await Request(request.scope, replay).form(
                max_files=max_files, max_fields=max_fields, max_part_size=self._limit
            )
        except HTTPException as exc:
            raise InvalidRequest(f"The form cannot be read: {exc.detail}.") from None

    async def read_body(self, request: Request) -> bytes:
        """Raises BodyTooLarge."""
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit:
            raise self._too_large()
        parts = []
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > self._limit:
                    raise self._too_large()
                parts.append(part)
        except ClientDisconnect:
            raise ClientGone from None
        return b"".join(parts)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than the {self._limit} bytes that this server takes.")

    def _client_of(self, request: Request, bearer: str) -> Caller | None:
        """Every key is compared with every candidate, so that time tells nothing."""
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


def read_json(body: bytes, decoder: Decoder[_T]) -> _T:
    """A body as a struct. Raises InvalidRequest with the field's path."""
    try:
        return decoder.decode(body)
    except ValidationError as exc:
        message, _, path = str(exc).partition(" - at `")
        param = path.rstrip("`").removeprefix("$").removeprefix(".").removesuffix("[...]") or None
        if message.startswith("Object missing required field"):
            name = message.rpartition("`")[0].rpartition("`")[2]
            param = f"{param}.{name}" if param else name
            raise InvalidRequest(
                f"The request lacks the field '{param}'.", param=param, code="missing_required_parameter"
            ) from None
        raise InvalidRequest(f"{message}{f' in {param}' if param else ''}.", param=param) from None
    except UNREADABLE as exc:
        raise InvalidRequest(f"The body is not JSON: {exc}.") from None


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
