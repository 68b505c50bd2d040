"""Translates failed connections to an upstream into errors, and describes the reason to the operator.

Exception texts are not shown: they hold OpenSSL's source lines, and differ between event loops and Python versions.
"""

from __future__ import annotations

import os
import re
import socket
import ssl

from openai_dify_proxy.errors import ProxyError, UpstreamMisconfigured, UpstreamUnreachable
from openai_dify_proxy.translate.connection_errors import PERMANENT, Failure, ServerAddress, describe_failure
from openai_dify_proxy.upstream.endpoints import Origin

_PLAIN_HTTP = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""OpenSSL's reasons, by version, for an answer that is not TLS; urllib3 recognizes the first three."""

_CERTIFICATE_FAILURES: dict[int, Failure] = {9: "not_yet_valid", 10: "expired", 62: "wrong_host", 64: "wrong_host"}
"""By OpenSSL's verify code (https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/); others are not trusted."""

_ERRNO = re.compile(r"\[Errno (\d+)\]")


_FAILURES: tuple[tuple[type[BaseException], Failure], ...] = (
    (ssl.SSLEOFError, "reset_handshake"),
    (ConnectionRefusedError, "refused"),
    (ConnectionResetError, "reset_handshake"),
    (ConnectionAbortedError, "reset_handshake"),
    (socket.gaierror, "unresolved"),
    (UnicodeError, "unresolved"),  # the host cannot be a name
)


def translate_connect_error(
    error: BaseException | None, message: str, server: ServerAddress, *, timeout: float
) -> ProxyError:
    """Return the error for a connection attempt that ended with ``error``.

    ``message`` is for the client; ``log`` has the reason. ``timeout`` is the attempt's limit in seconds.
    """
    failure, detail = _classify(error, timeout)
    kind = UpstreamMisconfigured if failure in PERMANENT else UpstreamUnreachable
    return kind(message, log=describe_failure(failure, server, detail))


def _classify(error: BaseException | None, timeout: float) -> tuple[Failure, str]:
    """Return the failure and the detail for ``describe_failure``."""
    if isinstance(error, OSError) and error.errno is None:
        error = _first_of(error)
    detail = ""
    failure = next((failure for kind, failure in _FAILURES if isinstance(error, kind)), None)
    if isinstance(error, TimeoutError):
        failure, detail = "timeout", f"{timeout:g} s"
    elif isinstance(error, ssl.SSLCertVerificationError):
        failure = _CERTIFICATE_FAILURES.get(error.verify_code, "untrusted")
        detail = error.verify_message.rstrip(".")
    elif failure is None and isinstance(error, ssl.SSLError):
        failure = "plain_http" if error.reason in _PLAIN_HTTP else "tls"
        detail = (error.reason or "unknown reason").lower().replace("_", " ")
    elif failure is None:
        failure = "other"
        detail = str(getattr(error, "strerror", None) or "unknown reason").lower()
    return failure, detail


def _first_of(error: OSError) -> OSError:
    """Return the first of the errors that asyncio joins into one text when it tried several addresses."""
    found = _ERRNO.search(str(error))
    return error if found is None else OSError(int(found[1]), os.strerror(int(found[1])))


class CannotConnect(Exception):
    """No connection to ``origin`` was made, so nothing was sent. The cause is the error of the attempt.

    ``timeout`` is the attempt's limit in seconds.
    """

    def __init__(self, origin: Origin, timeout: float) -> None:
        super().__init__(f"Cannot connect to {origin.host}:{origin.port}.")
        self.origin = origin
        self.timeout = timeout

    def translate(self, message: str, service: str, setting: str) -> ProxyError:
        """Return the error for clients, whose ``log`` has the reason. ``setting`` is the setting that holds the URL."""
        server = ServerAddress(service, self.origin.host, self.origin.port, setting)
        return translate_connect_error(self.__cause__, message, server, timeout=self.timeout)
