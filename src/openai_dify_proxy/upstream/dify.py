"""Dify's Service API, with a method per call that the proxy makes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import lru_cache
from secrets import token_hex
from typing import Any
from urllib.parse import quote, urlencode

from msgspec import Struct, json

from openai_dify_proxy.eager import in_task
from openai_dify_proxy.errors import (
    SEE_LOG,
    AuthenticationFailed,
    ProxyError,
    StreamCut,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamMisconfigured,
    UpstreamTimeout,
)
from openai_dify_proxy.translate.connection_errors import expects_https
from openai_dify_proxy.translate.dify.errors import NO_API, translate_rejection
from openai_dify_proxy.upstream.connection import MAX_HEAD_BYTES
from openai_dify_proxy.upstream.connection_errors import CannotConnect
from openai_dify_proxy.upstream.control_calls import ControlCalls
from openai_dify_proxy.upstream.endpoints import Endpoint, parse_url
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.wire import dify
from openai_dify_proxy.wire.complexity import check_complexity
from openai_dify_proxy.wire.reading import UNREADABLE

SMALL_ANSWER = 4 * 1024 * 1024
SMALL_TIMEOUT = 30.0
"""Bytes and seconds for calls that do not generate; a busy Dify may need ten seconds even for these."""

UPLOAD_TIMEOUT = 120.0
"""Seconds for the upload of one file."""

MESSAGES_PER_PAGE = 100
MAX_MESSAGES = 1000
"""How many of a conversation's latest messages are read."""

PROBE_USER = "proxy-probe"

URL_SETTING = "DIFY_API_URL"

SILENT = f"Dify does not answer. {SEE_LOG}"

_JSON = b"Content-Type: application/json\r\n"


class DifyApp(Struct, frozen=True):
    """The address and key of a Dify app. ``url`` ends with ``/v1`` and comes from ``url_setting``.

    ``own_key`` is false for a key that came in the request.
    """

    url: str
    key: str
    own_key: bool = True
    url_setting: str = URL_SETTING

    @property
    def base_url(self) -> str:
        """The URL of Dify itself, the base of the links to its files."""
        return self.url.removesuffix("/v1")

    @property
    def origin(self) -> str:
        """Scheme and host, the base of Dify's relative file links."""
        return _origin_of(self.url)


@lru_cache(maxsize=1024)
def _origin_of(url: str) -> str:
    at = url.index("://") + 3
    return url[: url.index("/", at)] if "/" in url[at:] else url


class VersionedAnswer(Struct, frozen=True):
    """An answer, and the version of Dify that sent it (``X-Version``)."""

    value: Any
    version: str | None


class DifyClient:
    """A client of Dify; every method raises ProxyError, as ``translate/dify/errors.py`` maps it.

    ``control`` limits stop calls and the calls that read an app's profile; by default it has no limit. The callers of
    other methods limit their number.
    """

    def __init__(self, http: HttpClient, control: ControlCalls | None = None) -> None:
        self._http = http
        self._control = control or ControlCalls(lambda _: False)

    async def generate(self, app: DifyApp, path: str, body: bytes | bytearray, more_headers: bytes = b"") -> Exchange:
        """Send the request for a turn and return without waiting for the answer's headers.

        ``more_headers`` are lines that end with CR LF.
        """
        endpoint, headers = _generation(app, path)
        try:
            return await self._http.exchange("POST", endpoint, headers + more_headers, body)
        except CannotConnect as error:
            raise _unreachable(error, app.url_setting) from error

    async def events(self, app: DifyApp, run_id: str, user: str, *, snapshot: bool = False) -> Exchange:
        """Request the events of a workflow run from now on, and return without waiting for the answer's headers.

        A ``snapshot`` of the run precedes them, and ends the stream if the run is paused.
        """
        query = {"user": user, "include_state_snapshot": "true"} if snapshot else {"user": user}
        path = f"/workflow/{quote(run_id, safe='')}/events?{urlencode(query)}"
        return await self._exchange("GET", parse_url(app.url + path), _headers(app), setting=app.url_setting)

    async def run_status(self, app: DifyApp, run_id: str) -> str | None:
        """Return the status of a workflow run, such as ``paused``. Raises NotFound."""
        run: dify.WorkflowRun = (
            await self._describe(app, f"/workflows/run/{quote(run_id, safe='')}", dify.WORKFLOW_RUN)
        ).value
        return run.status

    async def form(self, app: DifyApp, token: str) -> dify.PendingForm:
        """Return the form of a paused run. Raises FormClosed and NotFound."""
        form: dify.PendingForm = (await self._describe(app, _form_path(token), dify.PENDING_FORM)).value
        return form

    async def submit_form(self, app: DifyApp, token: str, submission: dify.FormSubmission) -> None:
        """Answer the form of a paused run, whose events are being read. Raises FormClosed and InvalidRequest."""
        await self._call(app, "POST", _form_path(token), json.encode(submission), control=True)

    async def send_form(self, app: DifyApp, path: str, body: bytes, boundary: str) -> Exchange:
        """Send a ``multipart/form-data`` body and return without waiting for the answer's headers."""
        headers = _headers(app) + f"Content-Type: multipart/form-data; boundary={boundary}\r\n".encode("latin-1")
        return await self._exchange("POST", parse_url(app.url + path), headers, body, setting=app.url_setting)

    async def file(self, url: str) -> Exchange:
        """Request a file at its signed link, and return without waiting for the answer. No key is sent."""
        return await self._exchange("GET", parse_url(url), _NO_KEY)

    async def stop(self, app: DifyApp, path: str, user: str) -> None:
        """Stop a running turn. Dify reports success in any case."""
        await self._call(app, "POST", path, json.encode({"user": user}), control=True, first=True)

    async def info(self, app: DifyApp) -> VersionedAnswer:
        """Return ``GET /info`` as ``AppInfo``."""
        return await self._describe(app, "/info", dify.APP_INFO, control=True)

    async def parameters(self, app: DifyApp) -> VersionedAnswer:
        """Return ``GET /parameters`` as ``AppParameters``."""
        return await self._describe(app, "/parameters", dify.APP_PARAMETERS, control=True)

    async def welcome(self, url: str) -> None:
        """Check that Dify answers ``GET /v1/``, which needs no key, with a status below 500."""
        exchange = await self._exchange("GET", parse_url(f"{url}/"), _AGENT.encode())
        try:
            body = await exchange.read_all(SMALL_ANSWER)
            if exchange.status is None:
                raise UpstreamFailed(SILENT, log=exchange.describe_missing_answer("Dify", URL_SETTING))
            if exchange.status >= 500:
                raise UpstreamFailed(SILENT, log=f"Dify answered with status {exchange.status}.")
            if expects_https(exchange.status, body):
                raise _https_expected(exchange, URL_SETTING)
        finally:
            if not exchange.ended:
                exchange.close()

    async def upload(self, app: DifyApp, user: str, *, name: str, media_type: str, data: bytes) -> str:
        """Upload a file for turns of the same app and user, and return its id in Dify.

        ``name`` has an extension, which decides the type and the size limit, and neither quotes nor control characters.
        """
        boundary = token_hex(16).encode()
        part = b"--" + boundary + b"\r\nContent-Disposition: form-data; name="
        body = b"".join((
            part,
            b'"user"\r\n\r\n',
            user.encode(),
            b"\r\n",
            part,
            b'"file"; filename="' + name.encode() + b'"\r\nContent-Type: ' + media_type.encode() + b"\r\n\r\n",
            data,
            b"\r\n--" + boundary + b"--\r\n",
        ))  # fmt: skip
        form = b"Content-Type: multipart/form-data; boundary=" + boundary + b"\r\n"
        _, answer = await self._call(app, "POST", "/files/upload", body, content_type=form, timeout=UPLOAD_TIMEOUT)
        try:
            return dify.UPLOAD_RECEIPT.decode(answer).id
        except UNREADABLE as exc:
            raise UpstreamFailed("Dify's answer to POST /files/upload cannot be read.", log=str(exc)) from exc

    async def confirm_conversation(self, app: DifyApp, conversation_id: str, user: str) -> None:
        """Raise ConversationNotFound if Dify has no conversation with this id for ``user``."""
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

    async def conversations(self, app: DifyApp, user: str) -> list[str]:
        """Return the ids of the latest conversations of ``user``, at most a page. Raises ProxyError."""
        path = f"/conversations?{urlencode({'user': user, 'limit': MESSAGES_PER_PAGE})}"
        page: dify.ConversationPage = (await self._describe(app, path, dify.CONVERSATION_PAGE)).value
        return [row.id for row in page.data]

    async def delete_conversation(self, app: DifyApp, conversation_id: str, user: str) -> None:
        """Delete a conversation. Raises ConversationNotFound.

        Old versions of Dify do not check the owner: the caller must know that it is ``user``.
        """
        await self._call(
            app, "DELETE", f"/conversations/{quote(conversation_id, safe='')}", json.encode({"user": user})
        )

    async def suggestions(self, app: DifyApp, message_id: str, user: str) -> list[str]:
        """Return questions that may follow a message; Dify's model writes them. Raises NotFound."""
        path = f"/messages/{quote(message_id, safe='')}/suggested?{urlencode({'user': user})}"
        found: dify.Suggestions = (await self._describe(app, path, dify.SUGGESTIONS)).value
        return found.data

    async def rate(self, app: DifyApp, message_id: str, feedback: dify.MessageFeedback) -> None:
        """Store the rating of a message of the feedback's user. Raises NotFound."""
        await self._call(app, "POST", f"/messages/{quote(message_id, safe='')}/feedbacks", json.encode(feedback))

    async def has_route(self, app: DifyApp, path: str, wrong_route: Collection[str]) -> bool:
        """Return whether the app serves ``path``; errors with a code of ``wrong_route`` mean that it does not.

        The probe holds only a user. Dify checks the user first, then the app's mode, then the rest, so nothing runs.
        """
        try:
            await self._call(app, "POST", path, json.encode({"user": PROBE_USER}), control=True)
        except ProxyError as error:
            if error.status >= 500 and error.code not in wrong_route:
                raise
            return error.code not in wrong_route
        return True

    async def _describe(
        self, app: DifyApp, path: str, decoder: json.Decoder[Any], *, control: bool = False
    ) -> VersionedAnswer:
        exchange, body = await self._call(app, "GET", path, control=control)
        try:
            check_complexity(body)
            return VersionedAnswer(decoder.decode(body), exchange.headers.get("x-version"))
        except UNREADABLE as exc:
            raise UpstreamFailed(f"Dify's answer to GET {path} cannot be read.", log=str(exc)) from exc

    async def _call(
        self,
        app: DifyApp,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        control: bool = False,
        first: bool = False,
        content_type: bytes = _JSON,
        timeout: float = SMALL_TIMEOUT,
    ) -> tuple[Exchange, bytes]:
        """Make a call that does not generate: if it is a ``control`` call, it may come ``first``, before others."""
        headers = content_type if body else b""
        await in_task()
        try:
            async with asyncio.timeout(timeout):
                if control:
                    async with self._control.connection(app.url, first=first):
                        exchange, answer = await self._answer_of(app, method, path, headers, body)
                else:
                    exchange, answer = await self._answer_of(app, method, path, headers, body)
        except TimeoutError:
            raise UpstreamTimeout(f"Dify did not answer {method} {path} within {timeout:g} s.") from None
        if exchange.head_too_large:
            raise _head_too_large()
        if exchange.answered_in_tls:
            raise _https_expected(exchange, app.url_setting)
        broke_off = f"Dify broke off its answer to {method} {path}."
        if exchange.status is None:
            raise UpstreamFailed(
                f"{broke_off} {SEE_LOG}", log=exchange.describe_missing_answer("Dify", app.url_setting)
            )
        if exchange.broken:
            raise UpstreamFailed(broke_off)
        if not 200 <= exchange.status < 300:
            raise rejection(app, exchange, answer)
        return exchange, answer

    async def _answer_of(
        self, app: DifyApp, method: str, path: str, headers: bytes, body: bytes
    ) -> tuple[Exchange, bytes]:
        endpoint = parse_url(app.url + path)
        exchange = await self._exchange(method, endpoint, _headers(app) + headers, body, setting=app.url_setting)
        try:
            return exchange, await exchange.read_all(SMALL_ANSWER)
        finally:
            if not exchange.ended:
                exchange.close()

    async def _exchange(
        self,
        method: str,
        endpoint: Endpoint,
        headers: bytes,
        body: bytes | bytearray = b"",
        *,
        setting: str = URL_SETTING,
    ) -> Exchange:
        """Send a request. ``setting`` is the setting that holds the URL, for the operator."""
        try:
            return await self._http.exchange(method, endpoint, headers, body)
        except CannotConnect as error:
            raise _unreachable(error, setting) from error


def _form_path(token: str) -> str:
    return f"/form/human_input/{quote(token, safe='')}"


def rejection(app: DifyApp, exchange: Exchange, body: bytes) -> ProxyError:
    """Return the error for an answer whose status is not 2xx."""
    status = exchange.status or 502
    if expects_https(status, body):
        return _https_expected(exchange, app.url_setting)
    return translate_rejection(
        status,
        exchange.headers.get("content-type", ""),
        body,
        url=app.url,
        setting=app.url_setting,
        own_key=app.own_key,
        location=exchange.headers.get("location"),
    )


def missing_answer(app: DifyApp, exchange: Exchange) -> ProxyError:
    """Return the error for a connection that ended before the headers of an answer."""
    if exchange.head_too_large:
        return _head_too_large()
    if exchange.answered_in_tls:
        return _https_expected(exchange, app.url_setting)
    return StreamCut(
        f"Dify closed the connection without an answer. {SEE_LOG}",
        started=True,
        log=exchange.describe_missing_answer("Dify", app.url_setting),
    )


def _unreachable(error: CannotConnect, setting: str) -> ProxyError:
    return error.translate(f"Dify cannot be reached. {SEE_LOG}", "Dify", setting)


def _head_too_large() -> UpstreamGarbled:
    return UpstreamGarbled(f"Dify's answer has more than {MAX_HEAD_BYTES} bytes of headers.", started=True)


def _https_expected(exchange: Exchange, setting: str) -> UpstreamMisconfigured:
    return UpstreamMisconfigured(NO_API, log=exchange.describe_missing_answer("Dify", setting, expects_https=True))


@lru_cache(maxsize=1024)
def _generation(app: DifyApp, path: str) -> tuple[Endpoint, bytes]:
    """Return the endpoint and the headers of a call that generates, whose ``path`` is one of a few."""
    return parse_url(app.url + path), _headers(app) + _JSON


def _headers(app: DifyApp) -> bytes:
    """Return the headers of every call. Raises AuthenticationFailed for a key that no header can hold.

    They request identity encoding, since a compressed stream arrives in bursts.
    """
    if not app.key.isascii() or not app.key.isprintable() or " " in app.key:
        raise AuthenticationFailed(
            "The Dify key contains a space or a character outside printable ASCII. Copy the key again from Dify."
        )
    return f"Authorization: Bearer {app.key}\r\nAccept-Encoding: identity\r\n{_AGENT}".encode("latin-1")


_AGENT = "User-Agent: openai-dify-proxy\r\n"
_NO_KEY = f"Accept-Encoding: identity\r\n{_AGENT}".encode("latin-1")
