"""Failed connections to real servers: the message in the log and the error that clients receive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from openai_dify_proxy.errors import (
    SEE_LOG,
    PictureNotStored,
    ProxyError,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamUnreachable,
)
from openai_dify_proxy.events import TurnFailed
from openai_dify_proxy.pictures.objects import open_object_store
from openai_dify_proxy.translate.connection_errors import ServerAddress
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.translate.replicate.model_names import ModelRef
from openai_dify_proxy.turns.dify_stream import DifyStream, TurnLimits
from openai_dify_proxy.upstream.connection_errors import translate_connect_error
from openai_dify_proxy.upstream.dify import DifyApp, DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.ipfs import IpfsClient
from openai_dify_proxy.upstream.replicate import ReplicateClient
from tests.api.servers import serving
from tests.certificates import Certificate, make_certificate
from tests.limits import PATIENCE

CONNECT_TIMEOUT = 1.0
PICTURE = f"{'0' * 64}.png"


@dataclass(frozen=True)
class Caller:
    """A client of one service: ``call`` sends a request to an origin, the other fields are terms of its messages."""

    call: Callable[[str], Awaitable[object]]
    service: str
    setting: str


async def ask_dify(origin: str) -> object:
    http = HttpClient(connect_timeout=CONNECT_TIMEOUT)
    try:
        return await DifyClient(http).info(DifyApp(f"{origin}/v1", "app-x"))
    finally:
        await http.close()


async def ask_ipfs(origin: str) -> object:
    http = HttpClient(connect_timeout=CONNECT_TIMEOUT)
    try:
        return await IpfsClient(http, f"{origin}/api/v0/add").add(b"x", "x.png", "image/png")
    finally:
        await http.close()


async def ask_replicate(origin: str) -> object:
    client = ReplicateClient(f"{origin}/v1", "r8_x", connect_timeout=CONNECT_TIMEOUT)
    try:
        return await client.create(ModelRef("a/b"), {}, cancel_after=5)
    finally:
        await client.close()


async def ask_object_store(origin: str) -> object:
    options = "access_key_id=a&secret_access_key=b&region=x&timeout=1s&connect_timeout=1s"
    return await open_object_store(f"s3://bucket/p?endpoint={origin}&{options}").record(PICTURE)


DIFY = Caller(ask_dify, "Dify", "DIFY_API_URL")
IPFS = Caller(ask_ipfs, "IPFS", "IPFS_UPLOAD_URL")
REPLICATE = Caller(ask_replicate, "Replicate", "REPLICATE_API_URL")
OBJECT_STORE = Caller(ask_object_store, "The object store", "the endpoint of PICTURE_STORE")

every_client = pytest.mark.parametrize(
    "client", [DIFY, IPFS, REPLICATE, OBJECT_STORE], ids=lambda client: client.service.lower()
)


async def failure(client: Caller, origin: str, *, permanent: bool | None = None) -> ProxyError:
    """Return the error of a call. ``permanent`` says whether the error must rule out a retry; None checks neither.

    The errors of the object store are the same for all causes, and never retried.
    """
    with pytest.raises((UpstreamError, PictureNotStored)) as caught:
        async with asyncio.timeout(PATIENCE):
            await client.call(origin)
    host = origin.rpartition("/")[2]
    assert host not in caught.value.message, "clients must not see addresses"
    if client is not IPFS:  # its errors reach no client
        assert caught.value.message.endswith(SEE_LOG)
    if permanent is not None and client is not OBJECT_STORE:
        assert type(caught.value) is (UpstreamMisconfigured if permanent else UpstreamUnreachable)
    return caught.value


@asynccontextmanager
async def tls_server(certificate: Certificate, answer: bytes = b"") -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # failed handshakes are expected
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate.server_context())
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


def answering(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a server callback that answers the first bytes with ``answer`` and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        writer.close()

    return serve


BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("local"))


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Certificate], Certificate]:
    """Trust a certificate in the way that the error message advises."""

    def trust(certificate: Certificate) -> Certificate:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        return certificate

    return trust


@every_client
async def test_https_to_a_plain_port(client: Caller) -> None:
    async with serving(answering(BAD_REQUEST)) as port:
        error = await failure(client, f"https://127.0.0.1:{port}", permanent=True)
    assert error.log == (
        f"{client.service} at 127.0.0.1:{port} answers in plain HTTP, not HTTPS. Use http:// in {client.setting}."
    )


@every_client
async def test_https_to_a_plain_port_that_closes(client: Caller) -> None:
    async with serving(answering(b"")) as port:
        error = await failure(client, f"https://127.0.0.1:{port}")
    assert error.log is not None
    assert error.log.startswith(f"{client.service} at 127.0.0.1:{port} closed the connection ")
    assert "_ssl.c" not in error.log


@every_client
async def test_plain_http_to_a_tls_port(client: Caller, local: Certificate) -> None:
    async with tls_server(local) as port:
        error = await failure(client, f"http://127.0.0.1:{port}")
    assert error.log == (
        f"{client.service} at 127.0.0.1:{port} closed the connection without an answer. "
        f"If it expects HTTPS, use https:// in {client.setting}."
    )


HTTPS_EXPECTED = [
    "<html><body><center>The plain HTTP request was sent to HTTPS port</center></body></html>",  # nginx
    "Client sent an HTTP request to an HTTPS server.\n",  # Go: Caddy, Traefik
    "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",  # Apache
]


@every_client
@pytest.mark.parametrize("body", HTTPS_EXPECTED, ids=["nginx", "go", "apache"])
async def test_plain_http_to_a_tls_port_of_a_web_server(client: Caller, body: str) -> None:
    answer = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    async with serving(answering(answer)) as port:
        error = await failure(client, f"http://127.0.0.1:{port}", permanent=True)
    assert error.log == (
        f"{client.service} at 127.0.0.1:{port} expects HTTPS, not plain HTTP. Use https:// in {client.setting}."
    )


@pytest.mark.parametrize("client", [DIFY, IPFS], ids=["dify", "ipfs"])
async def test_plain_http_to_a_server_that_sends_a_tls_alert(client: Caller) -> None:
    async with serving(answering(b"\x15\x03\x01\x00\x02\x02\x46")) as port:
        error = await failure(client, f"http://127.0.0.1:{port}")
    assert error.log == (
        f"{client.service} at 127.0.0.1:{port} expects HTTPS, not plain HTTP. Use https:// in {client.setting}."
    )


@every_client
async def test_a_refused_connection(client: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await failure(client, f"http://127.0.0.1:{port}", permanent=False)
    assert not error.started or client is OBJECT_STORE
    assert error.log == (
        f"{client.service} at 127.0.0.1:{port} refused the connection. "
        f"Check that it is running and that {client.setting} has the right port."
    )


@every_client
async def test_a_host_name_that_cannot_be_resolved(client: Caller) -> None:
    error = await failure(client, "http://no-such-host.invalid", permanent=False)
    assert error.log == (
        f"The host name 'no-such-host.invalid' of {client.service} cannot be resolved. "
        f"Check it in {client.setting}, or check the DNS."
    )


@pytest.mark.parametrize("client", [DIFY, IPFS, REPLICATE], ids=["dify", "ipfs", "replicate"])
async def test_a_host_that_cannot_be_a_name(client: Caller) -> None:
    error = await failure(client, f"http://{'x' * 70}.example")
    assert (error.log or "").startswith(f"The host name '{'x' * 70}.example' of {client.service} cannot be resolved.")


@every_client
async def test_a_port_that_accepts_and_stays_silent(client: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        error = await failure(client, f"https://127.0.0.1:{port}")
    assert error.log is not None
    assert error.log.startswith(f"{client.service} at 127.0.0.1:{port} did not answer within ")
    if client is not OBJECT_STORE:  # it retries
        assert error.log.endswith(f"within 1 s. Check {client.setting} and the firewalls in between.")


@every_client
async def test_a_certificate_that_is_not_trusted(client: Caller, local: Certificate) -> None:
    async with tls_server(local) as port:
        error = await failure(client, f"https://127.0.0.1:{port}", permanent=True)
    assert error.log is not None
    assert error.log.startswith(f"The certificate of {client.service} at 127.0.0.1:{port} is not trusted: ")
    assert error.log.endswith(". Add its issuer to the system's certificates, or set SSL_CERT_FILE.")


reads_the_variable_late = pytest.mark.parametrize(
    "client", [DIFY, IPFS, OBJECT_STORE], ids=["dify", "ipfs", "the object store"]
)
"""Without Replicate: its client aiohttp reads SSL_CERT_FILE only when it is imported."""


@reads_the_variable_late
@pytest.mark.parametrize(
    ("dates", "sentences"),
    [
        (("20200101000000Z", "20200201000000Z"), "has expired. Renew it there."),
        (("21000101000000Z", "21200101000000Z"), "is not valid yet. Check the clocks of both machines."),
    ],
    ids=["expired", "not yet valid"],
)
async def test_a_certificate_outside_its_validity_period(
    client: Caller,
    dates: tuple[str, str],
    sentences: str,
    tmp_path: Path,
    trusted: Callable[[Certificate], Certificate],
) -> None:
    certificate = trusted(make_certificate(tmp_path, begin=dates[0], end=dates[1]))
    async with tls_server(certificate) as port:
        error = await failure(client, f"https://127.0.0.1:{port}", permanent=True)
    assert error.log == f"The certificate of {client.service} at 127.0.0.1:{port} {sentences}"


@reads_the_variable_late
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_certificate_of_another_host(
    client: Caller, host: str, tmp_path: Path, trusted: Callable[[Certificate], Certificate]
) -> None:
    certificate = trusted(make_certificate(tmp_path, names="DNS:other.example"))
    async with tls_server(certificate) as port:
        error = await failure(client, f"https://{host}:{port}", permanent=True)
    assert error.log == (
        f"The certificate of {client.service} at {host}:{port} is not valid for '{host}'. "
        f"Use a host name that it covers in {client.setting}."
    )


async def test_a_failed_tls_handshake() -> None:
    handshake_failure = b"\x15\x03\x03\x00\x02\x02\x28"
    async with serving(answering(handshake_failure)) as port:
        error = await failure(DIFY, f"https://127.0.0.1:{port}", permanent=True)
    assert error.log is not None
    assert error.log.startswith(f"The TLS handshake with Dify at 127.0.0.1:{port} failed: ")
    assert error.log.endswith("handshake failure. Check the TLS versions and ciphers that it allows.")


async def test_a_turn_whose_connection_closes() -> None:
    http = HttpClient(connect_timeout=CONNECT_TIMEOUT)
    async with serving(answering(b"")) as port:
        app = DifyApp(f"http://127.0.0.1:{port}/v1", "app-x", url_setting="api_url of the app x")
        exchange = await DifyClient(http).generate(app, "/chat-messages", b"{}")
        limits = TurnLimits(PATIENCE, PATIENCE)
        stream = DifyStream(exchange, DifyEventDecoder("chat"), app, "u", limits)
        (failed,) = await stream.next()
    await http.close()
    assert isinstance(failed, TurnFailed)
    assert failed.error.message == f"Dify closed the connection without an answer. {SEE_LOG}"
    assert (failed.error.code, failed.error.started) == ("upstream_incomplete", True)
    assert failed.error.log == (
        f"Dify at 127.0.0.1:{port} closed the connection without an answer. "
        "If it expects HTTPS, use https:// in api_url of the app x."
    )


async def test_an_object_store_that_rejects_a_request() -> None:
    body = b"<Error><Code>AccessDenied</Code></Error>"
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with serving(answering(answer)) as port:
        error = await failure(OBJECT_STORE, f"http://127.0.0.1:{port}")
    assert error.log is not None
    assert error.log.endswith(body.decode())
    assert "retries" not in error.log


SERVER = ServerAddress("Dify", "::1", 80, "DIFY_API_URL")

OS_ERRORS: dict[str, tuple[BaseException | None, str]] = {
    "one of several addresses": (
        OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 80), [Errno 113] No route to host"),
        "Dify at [::1]:80 refused the connection.",
    ),
    "no route": (OSError(113, "No route to host"), "Dify at [::1]:80 cannot be reached: no route to host."),
    "without a number": (OSError("odd"), "Dify at [::1]:80 cannot be reached: unknown reason."),
    "no error": (None, "Dify at [::1]:80 cannot be reached: unknown reason."),
}


@pytest.mark.parametrize("case", OS_ERRORS)
def test_operating_system_errors(case: str) -> None:
    error, begin = OS_ERRORS[case]
    translated = translate_connect_error(error, "Dify cannot be reached.", SERVER, timeout=1)
    assert isinstance(translated, UpstreamUnreachable)
    assert (translated.log or "").startswith(begin)
