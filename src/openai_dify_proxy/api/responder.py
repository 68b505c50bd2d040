"""The response of a request, written without waiting; the server's front door provides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from starlette.types import Receive, Scope, Send

from openai_dify_proxy.telemetry.records import RequestRecord
from openai_dify_proxy.turns.client import EXTENSION

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""


class Responder(Protocol):
    """The response of one request. It is also the ``Client`` of the request's turn."""

    add_headers: list[Callable[[], Headers]]
    """Functions that return further headers, called when the response starts."""

    record: RequestRecord
    """The record of the request."""

    @property
    def disconnected(self) -> bool:
        """Whether the client has disconnected before the response was complete."""

    @property
    def status(self) -> int:
        """The status of the response; 0 before it has started."""

    @property
    def writable(self) -> bool:
        """Whether the kernel has taken all written bytes."""

    @property
    def unsent_bytes(self) -> int:
        """The bytes that were written and that the kernel has not taken yet."""

    @property
    def has_room(self) -> bool:
        """Whether the bytes that wait for slow clients, those of other responses included, are within their limit."""

    def when_room(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once ``has_room`` is true, at once if it is, even if the client has disconnected."""

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the client disconnects, at once if it already has. Replaces an earlier one."""

    def on_writable(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` whenever the response becomes writable again. Replaces an earlier one."""

    def start(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Write the head and the first part of the body, which is the whole body unless ``more``."""

    def write(self, body: bytes, *, more: bool) -> bool:
        """Write a part of the body, the last one unless ``more``. Return whether the response is ``writable`` then.

        Does nothing after the client disconnected.
        """

    def abort(self) -> None:
        """Close the connection at once, which counts as a disconnect of the client."""


def record_of(scope: Scope) -> RequestRecord:
    """Return the record of the request with this scope."""
    return responder_of(scope).record


def responder_of(scope: Scope) -> Responder:
    """Return the responder of the request with this scope."""
    return cast(Responder, scope["extensions"][EXTENSION]["responder"])


def json_headers(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of a complete JSON body."""
    return [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]


class JsonAnswer:
    """An ASGI response with a JSON body, written at once."""

    def __init__(self, body: bytes, headers: Headers = ()) -> None:
        self._body = body
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        responder_of(scope).start(200, [*json_headers(self._body), *self._headers], self._body, more=False)
