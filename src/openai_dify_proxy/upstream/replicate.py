"""Replicate's HTTP API, with a method per call that the proxy makes.

The token is sent to the API's own origin only. A creation is sent once: Replicate has no idempotency keys, so a second
one would be billed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from msgspec import UNSET, json
from msgspec.json import Decoder
from yarl import URL

from openai_dify_proxy.errors import (
    SEE_LOG,
    ModelNotFound,
    ProxyError,
    RateLimited,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from openai_dify_proxy.translate.connection_errors import ServerAddress, describe_failure, expects_https
from openai_dify_proxy.translate.replicate.errors import translate_api_error
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.upstream.bounded import ResponseTooLarge, read_bounded
from openai_dify_proxy.upstream.connection_errors import translate_connect_error
from openai_dify_proxy.upstream.network import Network
from openai_dify_proxy.wire import replicate as wire
from openai_dify_proxy.wire.complexity import check_complexity
from openai_dify_proxy.wire.reading import UNREADABLE

WAIT_SECONDS = 5
"""How long ``Prefer: wait`` lets Replicate delay its answer; up to 60 s are allowed. Fast models finish in this time.

Only the answer names the prediction, so until then an abandoned prediction cannot be cancelled.
"""

IDLE_SECONDS = 4.0
"""How long an idle connection stays open. Servers drop idle connections after five seconds or more, and a creation on
a connection that is being dropped is not sent again, since the prediction may have started."""

CALL_SECONDS = 90.0
MAX_GET_DELAY = 30.0
GET_ATTEMPTS = 3
SMALL_ANSWER = 64 * 1024 * 1024
"""Bytes; with ``Prefer: wait``, answers hold pictures as data URIs."""

URL_SETTING = "REPLICATE_API_URL"
UNREACHABLE = f"Replicate cannot be reached. {SEE_LOG}"

_T = TypeVar("_T")


class ReplicateClient:
    """A client of the API at ``url``, which ends with ``/v1``; every method raises ProxyError.

    ``connect_timeout`` is in seconds. ``network`` has the proxies and the certificates.
    """

    def __init__(self, url: str, token: str, *, connect_timeout: float, network: Network | None = None) -> None:
        self._url = url.rstrip("/")
        self._origin = _origin(URL(self._url))
        scheme, host, port = self._origin
        self._server = ServerAddress("Replicate", host or "", port or (443 if scheme == "https" else 80), URL_SETTING)
        self._connect_timeout = connect_timeout
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        network = network or Network()
        proxy = network.proxy_of(scheme, self._server.host, self._server.port)
        self._session = aiohttp.ClientSession(
            # No limit: a creation that waited for a connection could be sent long after its client disconnected.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS, ssl=network.tls),
            timeout=timeout,
            headers={"Authorization": f"Bearer {token}", "User-Agent": "openai-dify-proxy"},
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy.url if proxy is not None else None,
        )

    async def close(self) -> None:
        await self._session.close()

    async def create(self, ref: ModelRef, inputs: Mapping[str, Any], *, cancel_after: float) -> wire.Prediction:
        """Create a prediction, which may have ended already. Replicate cancels it after ``cancel_after`` seconds.

        The request is sent once; ``started`` of an error says whether the prediction may be running.
        """
        path, version = _creation_route(ref)
        body = json.encode(wire.CreatePrediction(dict(inputs), UNSET if version is None else version))
        headers = {
            "Content-Type": "application/json",
            "Prefer": f"wait={WAIT_SECONDS}",
            "Cancel-After": f"{max(5, round(cancel_after))}s",
        }
        status, answer_headers, answer = await self._send("POST", path, headers, body)
        if not 200 <= status < 300:
            raise translate_api_error(status, answer_headers, answer)
        return _decode(wire.PREDICTION, answer, started=True)

    async def prediction(self, prediction_id: str) -> wire.Prediction:
        try:
            return await self._get(f"/predictions/{quote(prediction_id, safe='')}", wire.PREDICTION)
        except ModelNotFound as exc:
            # On ModelNotFound the caller would create the prediction again.
            raise UpstreamFailed(
                "Replicate lost the prediction. Send the request again.", started=True, log=exc.message
            ) from exc

    async def cancel(self, prediction_id: str) -> None:
        path = f"/predictions/{quote(prediction_id, safe='')}/cancel"
        status, headers, answer = await self._send("POST", path, {}, b"")
        if status >= 400:
            raise translate_api_error(status, headers, answer)

    async def schema(self, ref: ModelRef) -> tuple[str | None, dict[str, Any]]:
        """Return the version's id and its ``openapi_schema``, which is empty for a version without a model name."""
        name, version = ref.name, ref.version
        if ref.deployment is not None:
            deployment = await self._get(f"/deployments/{quote(ref.deployment)}", wire.DEPLOYMENT)
            if deployment.current_release is not None:
                name, version = deployment.current_release.model, deployment.current_release.version
        if name is None:
            return None, {}
        path = f"/models/{quote(name)}"
        if version is not None:
            known = await self._get(f"{path}/versions/{quote(version, safe='')}", wire.MODEL_VERSION)
            return version, known.openapi_schema or {}
        latest = (await self._get(path, wire.MODEL)).latest_version
        return (None, {}) if latest is None else (latest.id, latest.openapi_schema or {})

    async def account(self) -> None:
        """Check the token. Raises ProxyError if Replicate rejects it."""
        await self._get("/account", Decoder(dict[str, Any]))

    async def upload(self, data: bytes, media_type: str, name: str) -> wire.UploadedFile:
        """Upload a file that predictions can read for a day, at ``urls["get"]``."""
        form = aiohttp.FormData()
        form.add_field("content", data, filename=name, content_type=media_type)
        status, headers, answer = await self._send("POST", "/files", {}, form)
        if not 200 <= status < 300:
            raise translate_api_error(status, headers, answer)
        return _decode(wire.UPLOADED_FILE, answer)

    async def delete_file(self, file_id: str) -> None:
        await self._send("DELETE", f"/files/{quote(file_id, safe='')}", {}, b"")

    def owns(self, url: str) -> bool:
        """Return whether ``url`` is at the API's own origin, so that the token may be sent there."""
        try:
            parsed = URL(url)
            origin = _origin(parsed)
        except ValueError:
            return False
        return parsed.user is None and parsed.password is None and origin == self._origin

    async def read_own(self, url: str, limit: int) -> bytes:
        """Return a file at the API's own origin, at most ``limit`` bytes."""
        try:
            async with asyncio.timeout(CALL_SECONDS), self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    kind = UpstreamGarbled if response.status >= 500 else UpstreamFailed
                    raise kind(f"Replicate's file could not be read: HTTP {response.status}.", started=True)
                return await read_bounded(response, limit)
        except ResponseTooLarge:
            raise _too_large(limit) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise UpstreamGarbled("Replicate's file could not be read.", started=True, log=_describe(exc)) from exc

    async def _get(self, path: str, decoder: Decoder[_T]) -> _T:
        """Read, and retry temporary errors: reading is free of charge."""
        for attempt in range(1, GET_ATTEMPTS + 1):
            try:
                status, headers, answer = await self._send("GET", path, {}, b"")
                if 200 <= status < 300:
                    return _decode(decoder, answer, started=True)
                error = translate_api_error(status, headers, answer)
            except (UpstreamUnreachable, UpstreamFailed, UpstreamTimeout) as exc:
                error = exc
            temporary = isinstance(error, (RateLimited, UpstreamUnreachable, UpstreamFailed, UpstreamTimeout))
            if attempt == GET_ATTEMPTS or not temporary:
                raise error
            await asyncio.sleep(min(error.retry_after or 0.25 * 2**attempt, MAX_GET_DELAY))
        raise AssertionError("unreachable")

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | aiohttp.FormData
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send once. ``started`` of an error is true for a POST that was sent, since it may have had its effect."""
        try:
            async with (
                asyncio.timeout(CALL_SECONDS),
                self._session.request(
                    method, self._url + path, headers=headers, data=body or None, allow_redirects=False
                ) as response,
            ):
                lowered = {name.lower(): value for name, value in response.headers.items()}
                answer = await read_bounded(response, SMALL_ANSWER)
                if expects_https(response.status, answer):
                    raise UpstreamMisconfigured(UNREACHABLE, log=describe_failure("https", self._server))
                return response.status, lowered, answer
        except ResponseTooLarge:
            raise _too_large(SMALL_ANSWER) from None
        except aiohttp.ClientConnectorError as exc:
            raise self._unreachable(exc.os_error) from exc
        except (aiohttp.ConnectionTimeoutError, UnicodeError) as exc:  # UnicodeError: a host that cannot be a name
            raise self._unreachable(exc) from exc
        except aiohttp.ServerDisconnectedError as exc:
            reason = describe_failure("closed_plain" if self._origin[0] == "http" else "closed", self._server)
            raise UpstreamGarbled(f"Replicate did not answer. {SEE_LOG}", started=method == "POST", log=reason) from exc
        except TimeoutError as exc:
            raise UpstreamTimeout(
                f"Replicate did not answer within {CALL_SECONDS:g} s.", started=method == "POST"
            ) from exc
        except (aiohttp.ClientError, OSError) as exc:
            message = "Replicate broke off its answer."
            raise UpstreamGarbled(message, started=method == "POST", log=_describe(exc)) from exc

    def _unreachable(self, error: BaseException) -> ProxyError:
        return translate_connect_error(error, UNREACHABLE, self._server, timeout=self._connect_timeout)


def _too_large(limit: int) -> UpstreamFailed:
    return UpstreamFailed(f"Replicate's answer is larger than {limit} bytes.", started=True)


def _decode(decoder: Decoder[_T], answer: bytes, *, started: bool = False) -> _T:
    try:
        check_complexity(answer)
        return decoder.decode(answer)
    except UNREADABLE as exc:
        raise UpstreamGarbled("Replicate's answer cannot be read.", started=started, log=str(exc)) from exc


def _creation_route(ref: ModelRef) -> tuple[str, str | None]:
    """Return the route and the ``version`` of a creation."""
    if ref.deployment is not None:
        return f"/deployments/{quote(ref.deployment)}/predictions", None
    if ref.name is not None and ref.version is not None:
        return "/predictions", f"{ref.name}:{ref.version}"
    return "/predictions", ref.version or ref.name


def _describe(error: Exception) -> str:
    """Return the error's text, not its ``repr``, which may hold the request with the token."""
    return f"{type(error).__name__}: {error}"


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port
