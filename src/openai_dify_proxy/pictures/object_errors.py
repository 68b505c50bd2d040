"""Describes the object store's errors to the operator.

obstore raises the same class for all connection failures; the cause is only in the Rust debug text behind its message.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from openai_dify_proxy.settings.extras import install_command
from openai_dify_proxy.translate.connection_errors import Failure, ServerAddress, describe_failure, expects_https

MAX_TEXT = 500
LIBRARY_MISSING: Final = f"PICTURE_STORE requires an extra package. Install it: {install_command('s3')}"
SETTING = "the endpoint of PICTURE_STORE"

_URL = re.compile(r"https?://[^\s,/?]+")
_RETRIES = re.compile(
    r" in (?P<elapsed>[\d.]+)(?P<unit>\w+), after \d+ retries, max_retries: \d+, retry_timeout: \S+\s+-"
)

_MARKS: tuple[tuple[str, Failure], ...] = (
    ("ConnectionRefused", "refused"),
    ("dns error", "unresolved"),
    ("InvalidContentType", "plain_http"),
    ("Expired", "expired"),
    ("NotValidYet", "not_yet_valid"),
    ("NotValidForName", "wrong_host"),
    ("InvalidCertificate", "untrusted"),
    ("kind: Timeout", "timeout"),
    ("UnexpectedEof", "reset_handshake"),
    ("IncompleteMessage", "closed"),
    ("ConnectionReset", "closed"),
)
"""Parts of the debug text, as reqwest, hyper and rustls name the causes; the first match counts."""


def describe_store_error(error: Exception) -> str:
    """Return sentences for a connection failure, else the error's first line without obstore's retry counts."""
    text = str(error).strip()
    failure = next((failure for mark, failure in _MARKS if mark in text), None)
    if expects_https(400, text.encode()):
        failure = "https"
    url = _URL.search(text)
    if failure is None or url is None:
        return _RETRIES.sub(":", text.partition("\n")[0])[:MAX_TEXT]
    parts = urlsplit(url[0])
    if failure == "closed" and parts.scheme == "http":
        failure = "closed_plain"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return describe_failure(
        failure, ServerAddress("The object store", parts.hostname or "", port, SETTING), _detail(failure, text)
    )


def _detail(failure: Failure, text: str) -> str:
    if failure == "untrusted":
        return "it is self-signed" if "CaUsedAsEndEntity" in text else "its issuer is unknown"
    elapsed = _RETRIES.search(text)
    return f"{float(elapsed['elapsed']):.0f} {elapsed['unit']}" if elapsed is not None else "the time limit"
