"""Uploads to an IPFS node or a pinning service, each in one multipart POST.

Nodes and services differ in the URL, the Authorization header, the form's fields and the answer. Settings describe
these differences, so no service needs its own code. Kubo reports failures after a status 200 in a trailer
(``X-Stream-Error``), which aiohttp does not expose; the project's own HTTP client does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from secrets import token_hex
from urllib.parse import urlencode, urlsplit

from openai_dify_proxy.errors import (
    ProxyError,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamTimeout,
)
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.translate.connection_errors import expects_https
from openai_dify_proxy.translate.pictures.ipfs_answers import NoCid, read_upload_answer
from openai_dify_proxy.translate.pictures.ipfs_cid import IMPORT_PARAMETERS
from openai_dify_proxy.upstream.connection_errors import CannotConnect
from openai_dify_proxy.upstream.endpoints import parse_url
from openai_dify_proxy.upstream.exchange import Exchange
from openai_dify_proxy.upstream.http import HttpClient

MAX_ANSWER = 1024 * 1024
RPC_PATH = "/api/v0/add"
URL_SETTING = "IPFS_UPLOAD_URL"


class IpfsClient:
    """A client that uploads to ``url``. Import parameters are added to the URL of Kubo's RPC unless it has a query.

    ``auth`` is the Authorization header, ``field`` the form field of the file, ``form`` holds further fields, and
    ``timeout`` limits one whole upload, in seconds.
    """

    def __init__(
        self,
        http: HttpClient,
        url: str,
        *,
        auth: str | None = None,
        field: str = "file",
        form: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._http = http
        parts = urlsplit(url)
        if parts.path.endswith(RPC_PATH) and not parts.query:
            url = f"{url.rstrip('?')}?{urlencode(IMPORT_PARAMETERS)}"
        self._endpoint = parse_url(url)
        self._auth = auth
        self._field = field
        self._form = dict(form or {})
        self._timeout = timeout

    async def add(self, data: bytes, name: str, media_type: str) -> str:
        """Upload a file and return its CID, as CIDv1 in base32. Raises ProxyError."""
        boundary = token_hex(16)
        body = _multipart(boundary, self._field, self._form, data=data, name=name, media_type=media_type)
        exchange, answer = await self._post(boundary, body)
        return _read(exchange, answer, name)

    async def probe(self) -> None:
        """Check that uploads are accepted by sending one without a file, which stores nothing. Raises ProxyError."""
        boundary = token_hex(16)
        exchange, answer = await self._post(boundary, _fields(boundary, self._form) + _end(boundary))
        status = exchange.status or 0
        # Kubo answers an upload without a file with a 500 in JSON; a failing server before it answers in other types.
        failed = not status or (status >= 500 and not answer.startswith(b"{"))
        if failed or status in (401, 403) or expects_https(status, answer):
            raise _rejection(exchange, answer)
        if status in (404, 405):
            raise UpstreamMisconfigured("IPFS_UPLOAD_URL does not accept uploads.", log=f"Status {status}.")

    async def _post(self, boundary: str, body: bytes) -> tuple[Exchange, bytes]:
        exchange = None
        try:
            async with asyncio.timeout(self._timeout):
                exchange = await self._http.exchange("POST", self._endpoint, self._headers(boundary), body)
                return exchange, await exchange.read_all(MAX_ANSWER)
        except CannotConnect as error:
            raise error.translate("IPFS cannot be reached.", "IPFS", URL_SETTING) from error
        except TimeoutError:
            raise UpstreamTimeout(
                "The upload to IPFS took too long.", log=f"No answer within {self._timeout:g} s (IPFS_TIMEOUT)."
            ) from None
        finally:
            if exchange is not None and not exchange.ended:
                exchange.close()

    def _headers(self, boundary: str) -> bytes:
        lines = [f"Content-Type: multipart/form-data; boundary={boundary}", "User-Agent: openai-dify-proxy"]
        if self._auth is not None:
            lines.append(f"Authorization: {self._auth}")
        return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


def ipfs_client(settings: Settings, http: HttpClient) -> IpfsClient | None:
    """Return the client that the settings describe; None if uploads are off."""
    if settings.ipfs_upload_url is None:
        return None
    auth = settings.ipfs_upload_auth
    return IpfsClient(
        http,
        settings.ipfs_upload_url,
        auth=auth.get_secret_value() if auth is not None else None,
        field=settings.ipfs_upload_field,
        form=settings.ipfs_upload_form,
        timeout=settings.ipfs_timeout,
    )


def _multipart(boundary: str, field: str, form: Mapping[str, str], *, data: bytes, name: str, media_type: str) -> bytes:
    file = _part(boundary, f'name="{_quoted(field)}"; filename="{name}"', f"Content-Type: {media_type}\r\n", data)
    return _fields(boundary, form) + file + _end(boundary)


def _fields(boundary: str, form: Mapping[str, str]) -> bytes:
    return b"".join(_part(boundary, f'name="{_quoted(key)}"', "", value.encode()) for key, value in form.items())


def _end(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode()


def _part(boundary: str, disposition: str, headers: str, content: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{headers}\r\n"
    return head.encode() + content + b"\r\n"


def _quoted(name: str) -> str:
    """Escape a name as browsers do: https://html.spec.whatwg.org/#multipart-form-data."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _read(exchange: Exchange, answer: bytes, name: str) -> str:
    failure = exchange.headers.get("x-stream-error")
    if exchange.status is None:
        raise UpstreamFailed("IPFS did not answer.", log=exchange.describe_missing_answer("IPFS", URL_SETTING))
    if exchange.broken or len(answer) >= MAX_ANSWER:
        raise UpstreamFailed("IPFS broke off its answer.", log=f"Status {exchange.status}, {len(answer)} bytes.")
    if not 200 <= exchange.status < 300:
        raise _rejection(exchange, answer)
    if failure is not None:
        raise UpstreamFailed("IPFS failed to store the picture.", log=f"X-Stream-Error: {failure}")
    try:
        return read_upload_answer(answer, name)
    except NoCid as exc:
        raise UpstreamFailed("IPFS returned no CID for the picture.", log=str(exc)) from exc


def _rejection(exchange: Exchange, answer: bytes) -> ProxyError:
    if exchange.status is None:
        return UpstreamFailed("IPFS did not answer.", log=exchange.describe_missing_answer("IPFS", URL_SETTING))
    if expects_https(exchange.status, answer):
        return UpstreamMisconfigured(
            "IPFS cannot be reached.", log=exchange.describe_missing_answer("IPFS", URL_SETTING, expects_https=True)
        )
    log = f"Status {exchange.status}: {answer[:300].decode(errors='replace')}"
    if exchange.status in (401, 403):
        return UpstreamMisconfigured("IPFS rejected the server's credentials.", log=log)
    return UpstreamFailed(
        "IPFS rejected the picture.", log=log, retry_after=_seconds(exchange.headers.get("retry-after"))
    )


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
