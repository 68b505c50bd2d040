"""Dify's Service API, one method for each call that the proxy makes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct, json

from openai_dify_proxy.errors import (
    AuthenticationFailed,
    ProxyError,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from openai_dify_proxy.translate.dify.errors import translate_refusal
from openai_dify_proxy.upstream.http import Endpoint, Exchange, HttpClient, parse_url
from openai_dify_proxy.wire import dify
from openai_dify_proxy.wire.reading import UNREADABLE

SMALL_ANSWER = 4 * 1024 * 1024
SMALL_TIMEOUT = 30.0
"""Bytes and seconds for calls that do not generate; a busy Dify may take ten seconds even for these."""

MESSAGES_PER_PAGE = 100
MAX_MESSAGES = 1000
"""The latest messages of a conversation that are read."""

PROBE_USER = "proxy-probe"

_FIXED_PATHS = frozenset({"/chat-messages", "/completion-messages", "/workflows/run", "/info", "/parameters"})

_JSON = b"Content-Type: application/json\r\n"


class DifyApp(Struct, frozen=True):
    """How to reach one Dify app. ``url`` ends with ``/v1``; ``own_key`` is false for a key that came in the request."""

    url: str
    key: str
    own_key: bool = True

    @property
    def origin(self) -> str:
        """Scheme and host, to which Dify's relative file links belong."""
        at = self.url.index("://") + 3
        return self.url[: self.url.index("/", at)] if "/" in self.url[at:] else self.url


class VersionedAnswer(Struct, frozen=True):
    """An answer and the version of the Dify that gave it (``X-Version``)."""

    value: Any
    version: str | None


class DifyClient:
    """Talks to Dify; every method raises ProxyError, as ``translate/dify/errors.py`` names it."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._targets: dict[tuple[str, str], Endpoint] = {}

    async def generate(self, app: DifyApp, path: str, body: bytes) -> Exchange:
        """Start a turn; the headers and the stream of the exchange are still to come."""
        return await self._exchange("POST", self._target(app, path), _headers(app) + _JSON, body)

    async def stop(self, app: DifyApp, path: str, user: str) -> None:
        """Stops a running turn. Dify says success whether or not it did."""
        await self._call(app, "POST", path, json.encode({"user": user}))

    async def info(self, app: DifyApp) -> VersionedAnswer:
        """``GET /info`` as ``AppInfo``."""
        return await self._describe(app, "/info", dify.APP_INFO)

    async def parameters(self, app: DifyApp) -> VersionedAnswer:
        """``GET /parameters`` as ``AppParameters``."""
        return await self._describe(app, "/parameters", dify.APP_PARAMETERS)

    async def welcome(self, url: str) -> None:
        """``GET /v1/``, which needs no key; any answer below 500 shows that Dify is there."""
        exchange = await self._exchange("GET", parse_url(f"{url}/"), _AGENT.encode())
        try:
            await exchange.read_all(SMALL_ANSWER)
            if exchange.status is None or exchange.status >= 500:
                raise UpstreamFailed("Dify does not answer.")
        finally:
            if not exchange.ended:
                exchange.close()

    async def confirm_conversation(self, app: DifyApp, conversation_id: str, user: str) -> None:
        """Raises ConversationNotFound if Dify has no such conversation of ``user``."""
        query = urlencode({"conversation_id": conversation_id, "user": user, "limit": 1})
        await self._call(app, "GET", f"/messages?{query}")

    async def messages(self, app: DifyApp, conversation_id: str, user: str) -> list[dify.MessageRow]:
        """Return the latest messages of a conversation, oldest first. Raises ConversationNotFound."""
        rows: list[dify.MessageRow] = []
        query = {"conversation_id": conversation_id, "user": user, "limit": str(MESSAGES_PER_PAGE)}
        while len(rows) < MAX_MESSAGES:
            before = {"first_id": rows[0].id} if rows else {}
            page: dify.MessagePage = (
                await self._describe(app, f"/messages?{urlencode(query | before)}", dify.MESSAGE_PAGE)
            ).value
            rows = sorted(page.data, key=lambda row: row.created_at) + rows
            if not page.has_more or not page.data:
                break
        return rows

    async def delete_conversation(self, app: DifyApp, conversation_id: str, user: str) -> None:
        """Raises ConversationNotFound. Old Difys do not check the owner: the caller must know that it is ``user``."""
        await self._call(app, "DELETE", f"/conversations/{conversation_id}", json.encode({"user": user}))

    async def has_route(self, app: DifyApp, path: str, wrong_route: Collection[str]) -> bool:
        """Whether the app takes requests at ``path``; ``wrong_route`` are the codes of errors that say no.

        The probe holds nothing but a user. Dify checks that first, then the app's mode, then the rest, so nothing runs.
        """
        try:
            await self._call(app, "POST", path, json.encode({"user": PROBE_USER}))
        except ProxyError as error:
            if error.status >= 500 and error.code not in wrong_route:
                raise
            return error.code not in wrong_route
        return True

    async def _describe(self, app: DifyApp, path: str, decoder: json.Decoder[Any]) -> VersionedAnswer:
        exchange, body = await self._call(app, "GET", path)
        try:
            return VersionedAnswer(decoder.decode(body), exchange.headers.get("x-version"))
        except UNREADABLE as exc:
            raise UpstreamFailed(f"Dify's answer to GET {path} cannot be read.", log=str(exc)) from exc

    async def _call(self, app: DifyApp, method: str, path: str, body: bytes = b"") -> tuple[Exchange, bytes]:
        exchange = None
        try:
            async with asyncio.timeout(SMALL_TIMEOUT):
                exchange = await self._exchange(
                    method, self._target(app, path), _headers(app) + (_JSON if body else b""), body
                )
                answer = await exchange.read_all(SMALL_ANSWER)
        except TimeoutError:
            raise UpstreamTimeout(f"Dify did not answer {method} {path} in time.") from None
        finally:
            if exchange is not None and not exchange.ended:
                exchange.close()
        if exchange.status is None or exchange.broken:
            raise UpstreamFailed(f"Dify broke off its answer to {method} {path}.")
        if not 200 <= exchange.status < 300:
            raise refusal(app, exchange, answer)
        return exchange, answer

    async def _exchange(self, method: str, endpoint: Endpoint, headers: bytes, body: bytes = b"") -> Exchange:
        try:
            return await self._http.exchange(method, endpoint, headers, body)
        except UpstreamUnreachable as error:
            raise UpstreamUnreachable("Dify cannot be reached.", log=error.log) from error

    def _target(self, app: DifyApp, path: str) -> Endpoint:
        """URLs are parsed once, except those that hold an id."""
        if path not in _FIXED_PATHS:
            return parse_url(app.url + path)
        key = (app.url, path)
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = parse_url(app.url + path)
        return target


def refusal(app: DifyApp, exchange: Exchange, body: bytes) -> ProxyError:
    """An answer with a status other than 2xx, as an error."""
    status = exchange.status or 502
    return translate_refusal(
        status,
        exchange.headers.get("content-type", ""),
        body,
        own_key=app.own_key,
        location=exchange.headers.get("location"),
    )


@lru_cache(maxsize=1024)
def _headers(app: DifyApp) -> bytes:
    """Identity encoding, since a compressed stream comes in lumps. Raises AuthenticationFailed."""
    if not app.key.isascii() or not app.key.isprintable() or " " in app.key:
        raise AuthenticationFailed("A Dify key is made of printable ASCII characters without spaces.")
    return f"Authorization: Bearer {app.key}\r\nAccept-Encoding: identity\r\n{_AGENT}".encode("latin-1")


_AGENT = "User-Agent: openai-dify-proxy\r\n"
