"""Describes to the operator why a connection to an upstream failed.

Exception texts are not shown: they hold OpenSSL's source lines, and differ between event loops and Python versions.
"""

from __future__ import annotations

import os
import re
import socket
import ssl

from openai_dify_proxy.translate.connection_errors import Failure, ServerAddress, describe_failure

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


def describe_connect_error(error: BaseException | None, server: ServerAddress, *, timeout: float) -> str:
    """Return sentences for the error that ended a connection attempt. ``timeout`` is the attempt's limit in seconds."""
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
    return describe_failure(failure, server, detail)


def _first_of(error: OSError) -> OSError:
    """Return the first of the errors that asyncio joins into one text when it tried several addresses."""
    found = _ERRNO.search(str(error))
    return error if found is None else OSError(int(found[1]), os.strerror(int(found[1])))
