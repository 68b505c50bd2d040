"""One client connection: uvicorn's protocol with bounded heads, pipelines and timeouts.

uvicorn parses and answers requests; this subclass controls what its parser receives. Data is parsed in pieces, so a
limit is checked before the bytes beyond it are parsed. A head that is known already is not parsed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import httptools
from uvicorn._types import HTTPScope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.server import limits, rejections
from openai_dify_proxy.server.exchange import Cycle
from openai_dify_proxy.server.flow import Flow
from openai_dify_proxy.server.forwarding import forwarded_client, forwarded_scheme, is_trusted, parse_address
from openai_dify_proxy.server.heads import END_OF_HEAD, Framing, Target, head_of_body, parse_target, read_framing
from openai_dify_proxy.server.known_heads import KnownHead
from openai_dify_proxy.telemetry import AccessLog, RequestRecord, RequestRecords

if TYPE_CHECKING:
    from openai_dify_proxy.server.front_door import FrontDoor

TASK_SECONDS: Final = 0.0005
"""About how long the application works on a request until it waits for Dify."""

REQUEST_RECORDS: Final = "request_records"
"""The key in the state of the app's lifespan that holds its ``RequestRecords``."""

HOT_PATH: Final = "hot_path"
"""The key in the state of the app's lifespan that holds its ``HotPath``, if it has one."""


class Shortcut(Protocol):
    """Serves common requests without the ASGI application."""

    @property
    def paths(self) -> Container[str]:
        """The paths of the requests."""

    @property
    def max_body(self) -> int:
        """Bytes of the largest body."""

    def serve(self, request: Cycle) -> bool:
        """Serve a complete POST request to one of ``paths``. Return False if the application has to serve it."""


# What is being read.
IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
ANSWER: Final = 3
LINGER: Final = 4
LAST: Final = 5
"""Nothing: an invalid request arrived while earlier ones are answered. Their answers are the last."""


_SERVED: HTTPScope = {"method": "POST"}  # type: ignore[typeddict-item]
"""What is left of the scope of a request that the hot path serves."""

_NO_BODY = Framing()


class Connection(HttpToolsProtocol):
    """The protocol of one connection."""

    __slots__ = (
        "_admitted",
        "_answering",
        "_behind_proxy",
        "_body_bytes",
        "_by_length",
        "_delayed",
        "_door",
        "_framing",
        "_framing_bytes",
        "_head_began",
        "_head_bytes",
        "_hot_path",
        "_known_head",
        "_limits",
        "_phase",
        "_rejection",
        "_unparsed",
        "_unstarted",
        "_waiting_bytes",
        "_window_bytes",
        "address",
        "cycle",
        "expect_100_continue",
        "flow",
        "headers",
        "parser",
        "scope",
        "since",
        "url",
    )

    flow: Flow
    cycle: Cycle | None  # type: ignore[assignment] # None before the first request

    def __init__(
        self,
        door: FrontDoor,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.pipeline = []  # type: ignore[assignment]  # a deque takes 760 bytes of each connection
        self.since = 0.0
        """The loop's time at which the phase began, or the current window of a body."""
        self._head_began = 0.0
        self.address = ""
        """The client's address; empty for a trusted proxy, which many clients share."""
        self._behind_proxy = False
        self._door = door
        self._limits = door.limits
        self._phase = IDLE
        self._admitted = True
        self._unparsed = b""
        self._head_bytes = 0
        self._body_bytes = 0
        self._framing_bytes = 0
        self._window_bytes = 0
        self._waiting_bytes = 0
        self._framing = _NO_BODY
        self._known_head: KnownHead | None = None
        self._by_length = False
        """Whether the body is read without the parser, which has not seen the head."""
        self._rejection: ProxyError | None = None
        self._hot_path: Shortcut | None = app_state.get(HOT_PATH)
        self._unstarted: Cycle | None = None
        """The request that starts with its whole body, or when that takes long."""
        self._answering: Cycle | None = None
        self._delayed: Cycle | None = None
        """The request that starts when the client has read the earlier answers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport, self._door.write_buffers)
        peer = self.client[0] if self.client else ""
        proxies = self._limits.proxies
        self._behind_proxy = bool(proxies) and is_trusted(parse_address(peer), proxies)
        self.address = "" if self._behind_proxy else peer
        self._admitted = self._door.admit(self)
        self._become_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        self._start_unstarted()  # the application records its end
        self._door.release(self)
        self._unparsed = b""
        while self.pipeline:
            waiting, _ = self.pipeline.pop()
            assert isinstance(waiting, Cycle)
            waiting.disconnect()  # its responder refers to it
        if self._answering is not None:
            self._answering.disconnect()
            self._answering = self._delayed = None
        self.cycle = None  # a request that was never answered refers to this connection
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._door.unread[self] = None

    def resume_writing(self) -> None:
        super().resume_writing()
        self._door.unread.pop(self, None)
        cycle, self._delayed = self._delayed, None
        if cycle is not None and not cycle.disconnected:
            self.start(cycle)
        elif self._phase == IDLE and not self.transport.is_closing():
            self._become_idle()

    def close(self) -> None:
        """Close the connection; a client that has not read its last response by now loses the rest of it."""
        if self.flow.write_paused:
            self.transport.abort()
        else:
            self.transport.close()

    def end_after_answer(self) -> None:
        """Close the connection after the last request that has arrived."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def check_deadline(self, now: float) -> None:
        """Reject a request whose head or body arrives too slowly; close a connection that lingered long enough."""
        elapsed = now - self.since
        self._start_unstarted()
        if self._phase == LINGER:
            if elapsed >= limits.LINGER_SECONDS:
                self.abort()
        elif self.flow.read_paused or self._owes_continue():  # the client waits for the proxy, so it is not slow
            self._begin_window(now)
        elif self._phase == HEAD:
            if elapsed >= self._limits.head_timeout:
                self._reject(rejections.slow_head(self._limits))
        elif elapsed >= self._limits.body_window:
            if self._window_bytes < elapsed * self._limits.body_rate:
                self._reject(rejections.slow_body(self._limits))
            else:
                self._begin_window(now)

    def _owes_continue(self) -> bool:
        """Return whether the client waits for ``100 Continue`` before it sends the body."""
        return self._phase == BODY and self.cycle is not None and self.cycle.waiting_for_100_continue

    def _begin_window(self, now: float) -> None:
        self.since = now
        self._window_bytes = 0

    def _become_idle(self) -> None:
        """Begin to wait for a request; the time counts once the client has read the last response."""
        self._phase = IDLE
        if not self.flow.write_paused:
            self.since = self.loop.time()
            self._door.idle[self] = None

    # Parsing

    def data_received(self, data: bytes) -> None:
        if self._phase in (LINGER, LAST):
            return
        if self._phase == IDLE and not self._door.starting.has_time() and self._can_wait(data):
            self._unparsed = data
            self.flow.hold(True)  # also of the end of the connection
            self._door.idle.pop(self, None)
            self._door.starting.defer(self._receive_late)
            self._report_held()
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        if self._phase == IDLE and self._known_head is not None:
            data = self._begin_known(self._known_head, data)
        if self._phase == IDLE and len(data) <= limits.PIECE and data.count(END_OF_HEAD) <= 1:
            self._parse(data)  # the common case: one small request
        elif self._by_length and not self._unparsed and len(data) + self._body_bytes == self._framing.length:
            self._read_by_length(data)  # the rest of a body, usually all of it
        else:
            self._unparsed += data
            self._parse_pieces()
        if self._phase == HEAD or self._unparsed or self._waiting_bytes or self in self._door.holding:
            self._report_held()

    def _begin_known(self, head: KnownHead, data: bytes) -> bytes:
        """Begin a request if it has the known head. Return the data without this head."""
        hot, found = self._hot_path, head.match(data)
        if hot is None or found is None or self.flow.write_paused:
            return data
        end, digits = found
        length = int(digits)
        if not 0 < length <= hot.max_body:
            return data
        self._begin_head()
        self._head_bytes = end
        scope = head.make_scope(digits)
        scope["client"], scope["server"] = self.client, self.server
        self._by_length = True
        self._begin_request(scope, Framing(length), hot, keep_alive=not self._door.draining)
        return data[end:]

    def _can_wait(self, data: bytes) -> bool:
        """Return whether a request may wait while others have used up the slice of time for requests.

        Health checks do not wait. Nor do large reads, which would fill the memory for heads, and empty lines, which are
        no request.
        """
        return not (len(data) > limits.PIECE or data.startswith(limits.HEALTH_CHECKS) or not data.lstrip(b"\r\n"))

    def _receive_late(self) -> None:
        data, self._unparsed = self._unparsed, b""
        if data and not self.transport.is_closing():
            self.flow.hold(False)
            self._become_idle()
            self._receive(data)

    def shutdown(self) -> None:
        """Close the connection after the request that has arrived, if there is one (the server stops)."""
        if self._phase == IDLE:
            self._receive_late()
        super().shutdown()

    def _report_held(self) -> None:
        """Report the bytes that this connection holds of requests that no handler reads yet."""
        held = len(self._unparsed) + self._waiting_bytes
        if self._phase == HEAD:
            held += self._head_bytes
        self._door.hold(self, held)

    def _parse_pieces(self) -> None:
        """Parse the data that has arrived, until it is used up or the pipeline is full; then reading pauses."""
        data, start = self._unparsed, 0
        while start < len(data) and not self._pipeline_full() and not self._closing:
            end = self._end_of_piece(data, start)
            if self._by_length:
                self._read_by_length(data[start:end])
            else:
                self._parse(data[start:end])
            start = end
        self._unparsed = b"" if self._closing else data[start:]
        self.flow.hold(bool(self._unparsed))

    def _pipeline_full(self) -> bool:
        waiting = len(self.pipeline)
        return waiting >= self._limits.pipelined or (waiting > 0 and self._waiting_bytes >= limits.MAX_WAITING_BYTES)

    def _end_of_piece(self, data: bytes, start: int) -> int:
        """Return the end of the next piece, which ends no more than one head and no more than one body."""
        if self._phase == BODY and (length := self._framing.length) is not None:
            return min(len(data), start + max(length - self._body_bytes, 1))  # at least one byte, or it would not end
        found = data.find(END_OF_HEAD, start, start + limits.PIECE)
        return min(len(data), start + limits.PIECE) if found < 0 else found + len(END_OF_HEAD)

    @property
    def _closing(self) -> bool:
        return self._phase in (LINGER, LAST) or self.transport.is_closing()

    def _parse(self, piece: bytes) -> None:
        if begins := self._phase in (IDLE, ANSWER):
            piece = piece.lstrip(b"\r\n")  # some clients end a body with an extra line
            if not piece:
                return
            self._begin_head()
        error = self._exceeded(len(piece))
        if error is not None:
            self._reject(error)
            return
        try:
            self.parser.feed_data(piece)
            if begins and self._known_head is None and self._unstarted is not None:
                self._unstarted.head = piece
        except httptools.HttpParserUpgrade as upgrade:
            rest = piece[upgrade.args[0] :]
            self._ignore_upgrade()
            if rest:
                self._parse(rest)
        except httptools.HttpParserError:
            error, self._rejection = self._rejection, None
            # The traceback leads back to this frame, its data and the connection.
            self._reject(rejections.bad_http(piece) if error is None else error.with_traceback(None))
        if self._unstarted is not None and not self._unstarted.more_body:
            self._start_unstarted()

    def _exceeded(self, size: int) -> ProxyError | None:
        """Count ``size`` bytes that are parsed next. Return the error if the head or the chunks are too large."""
        if self._phase == HEAD:
            self._head_bytes += size
            if self._head_bytes > self._limits.head_bytes:
                return rejections.too_large(self.url, self._limits)
        else:
            self._framing_bytes += size
            if self._framing_bytes > self._limits.head_bytes and self._framing.length is None:
                return rejections.tiny_chunks()
        return None

    def _read_by_length(self, piece: bytes) -> None:
        """Read a part of the body, which is not longer than its rest."""
        self.on_body(piece)
        if self._body_bytes == self._framing.length:
            self._by_length = False
            self.on_message_complete()
            self._start_unstarted()

    def _start_unstarted(self) -> None:
        """Start the request that was to start with its whole body."""
        cycle, self._unstarted = self._unstarted, None
        if cycle is not None and not cycle.disconnected:
            self.start(cycle)

    def _ignore_upgrade(self) -> None:
        """Continue in HTTP/1.1, as RFC 9110 permits: Java's client offers ``h2c`` with every request.

        The parser stops behind the head of such a request. A new parser reads the body. It is first fed a head that
        declares the same length. The callbacks ignore that head, since the phase is ``BODY``.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        if self._phase == BODY:
            self.parser.feed_data(head_of_body(self._framing.length))

    def _begin_head(self) -> None:
        self._phase = HEAD
        self._head_began = self.since = self.loop.time()
        self._head_bytes = 0
        self.url = b""
        self.headers = []
        self._door.idle.pop(self, None)
        self._door.reading[self] = None

    # The parser's callbacks

    def on_message_begin(self) -> None:
        if self._phase in (IDLE, ANSWER):  # the read that ended a request began another
            self._begin_head()

    def on_url(self, url: bytes) -> None:
        if self._phase == HEAD:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase == HEAD:  # trailers of a chunked body are ignored
            headers = self.headers
            if len(headers) >= self._limits.headers:
                raise self._rejected(rejections.too_many_headers(self._limits))
            headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._phase != HEAD:  # the head that ``_ignore_upgrade`` feeds
            return
        version = self.parser.get_http_version()
        framing = read_framing(self.headers)
        if version not in ("1.1", "1.0") or framing is None:
            raise self._rejected(rejections.bad_http())
        if len(self.url) > self._limits.url_bytes:
            raise self._rejected(rejections.too_large(self.url, self._limits))
        scope = self._make_scope(version, parse_target(self.url))
        if self._behind_proxy:
            peer = self.client[0] if self.client else ""
            scope["client"] = (forwarded_client(peer, self.headers, self._limits.proxies), 0)
            scope["scheme"] = forwarded_scheme(self.headers, scope["scheme"])
        kept = self._admitted and not self._door.draining and self.parser.should_keep_alive()
        shortcut = self._find_shortcut(scope, framing)
        self._begin_request(scope, framing, shortcut, keep_alive=kept and version != "1.0")

    def _begin_request(
        self, scope: HTTPScope, framing: Framing, shortcut: Shortcut | None, *, keep_alive: bool
    ) -> None:
        """Begin the request whose head is complete."""
        self.scope = scope
        self._framing = framing
        self._phase = BODY
        self._body_bytes = self._framing_bytes = self._window_bytes = 0
        self.since = self.loop.time()
        if not self._admitted and scope["path"] not in limits.HEALTH_PATHS:
            raise self._rejected(rejections.too_many_connections())
        self.cycle = cycle = Cycle(self, shortcut, keep_alive=keep_alive, expects_continue=framing.expects_continue)
        if self._answering is None:
            self._answer(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.insert(0, (cycle, self.app))
            self._waiting_bytes += self._head_bytes + limits.WAITING_REQUEST_BYTES

    def _make_scope(self, version: str, target: Target) -> HTTPScope:
        """Return the ASGI scope of the request whose head is complete."""
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "scheme": self.scheme,  # type: ignore[typeddict-item]  # http or https
            "path": target.path,
            "raw_path": target.raw_path,
            "query_string": target.query,
            "root_path": self.root_path,
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
        }

    def _find_shortcut(self, scope: HTTPScope, framing: Framing) -> Shortcut | None:
        """Return the hot path if it may serve the request once its body has arrived: clients often send it apart."""
        hot, length = self._hot_path, framing.length
        if hot is None or scope["path"] not in hot.paths or scope["method"] != "POST" or framing.expects_continue:
            return None
        return hot if length is not None and length <= hot.max_body else None

    def _answer(self, cycle: Cycle) -> None:
        self._answering = cycle
        if self.flow.write_paused:
            self._delayed = cycle
        else:
            self._unstarted = cycle
            if cycle.shortcut is None or not cycle.more_body:
                self._start_unstarted()

    def start(self, cycle: Cycle) -> None:
        """Serve a request: on the hot path if it can, else by the application.

        It starts in a later iteration of the loop if others have used up the slice of time.
        """
        starting, shortcut = self._door.starting, cycle.shortcut
        if not starting.has_time() and cycle.scope["path"] not in limits.HEALTH_PATHS:
            starting.defer(partial(self.start, cycle))
            return
        if shortcut is not None and not cycle.more_body and not cycle.disconnected and shortcut.serve(cycle):
            if cycle.head and cycle.keep_alive and not self._behind_proxy:
                self._known_head = self._door.known_heads.add(cycle.head, cycle.scope)
            cycle.scope = _SERVED  # the rest is not needed while a stream is open
            if self.cycle is cycle and self._phase == ANSWER:  # not if the head of the next request is being read
                self.scope = _SERVED
                self.headers = []
        else:
            starting.charge(TASK_SECONDS)
            cycle.prepare_for_app(self.app_state)
            self._start_asgi_task(cycle, self.app)
        cycle.head = b""

    def _rejected(self, error: ProxyError) -> ProxyError:
        """Remember the error: the parser turns what a callback raises into an error of its own."""
        self._rejection = error
        return error

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._body_bytes += size
        self._window_bytes += size
        self._framing_bytes = 0
        if self.pipeline:
            self._waiting_bytes += size
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            if cycle.message_event is not None:
                cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._framing.length != 0:
            return  # the body is still to come
        self._door.reading.pop(self, None)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.record.received = perf_counter()
            cycle.more_body = False
            if cycle.message_event is not None:
                cycle.message_event.set()
        if self._answering is None:
            self._become_idle()
        else:
            self._phase = ANSWER

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._answering = None
        if self.transport.is_closing() or self._phase == LINGER:
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, _ = self.pipeline.pop()
            assert isinstance(cycle, Cycle)
            if not self.pipeline:
                self._waiting_bytes = 0
            self._answer(cycle)
        elif self._phase == ANSWER:
            self._become_idle()
        elif self._phase == BODY and self.too_much_left():
            self._linger()
        if self._unparsed:
            self._parse_pieces()
        if self in self._door.holding:
            self._report_held()

    def too_much_left(self) -> bool:
        """Return whether closing the connection is cheaper than reading the rest of an answered request's body."""
        length = self._framing.length
        return length is None or length - self._body_bytes > limits.MAX_DISCARDED_BYTES

    # Rejections

    def _reject(self, error: ProxyError) -> None:
        """Answer the request that is being read with ``error``, and close the connection."""
        self._start_unstarted()  # the application records its end
        # The request being read is the one being answered only if its head is complete and nothing waits behind it.
        answering = self._answering
        if answering is not None and self._phase == BODY and not self.pipeline and not answering.response_started:
            answering.record.fail(error)  # its own record ends when its handler does
            answering.record.status = error.status
        else:
            self._record(error)
        if answering is not None and self._phase == HEAD:
            self._close_after_answers()
            return
        if self.pipeline or (answering is not None and answering.response_started):
            self.abort()  # a response is under way, and nothing can be sent in its middle
            return
        if answering is not None:
            answering.disconnect()
            self._answering = None
        self.transport.write(rejections.response(error))
        self._linger()

    def _record(self, error: ProxyError) -> None:
        """Record a rejected request that has no handler."""
        client = self.scope["client"] if self._phase == BODY else self.client
        record = RequestRecord(kind="rejection", client=client and client[0], status=error.status, error=error)
        record.begin(0.0)
        elapsed = self.loop.time() - self._head_began
        record.started -= elapsed
        record.began_at -= elapsed
        records: RequestRecords = self.app_state.get(REQUEST_RECORDS) or RequestRecords(AccessLog())
        records.close(record)

    def _close_after_answers(self) -> None:
        """Discard what arrives, and close the connection after the answers to the earlier requests."""
        assert self.cycle is not None
        self.cycle.keep_alive = False
        self._phase = LAST
        self._unparsed = b""
        self.headers = []
        self._door.reading.pop(self, None)
        self.flow.hold(False)

    def _linger(self) -> None:
        self._phase = LINGER
        self.since = self.loop.time()
        self._unparsed = b""
        self._waiting_bytes = 0
        self.headers = []
        self._door.idle.pop(self, None)
        self._door.reading[self] = None
        self.flow.hold(False)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
