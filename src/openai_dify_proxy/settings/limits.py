"""The limits for everything that a client can send, hold or delay; ``model`` has the other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from openai_dify_proxy.settings.markers import Shown
from openai_dify_proxy.settings.values import Bytes, Seconds, SecondsOrNone

BODY_MEMORY_FACTOR = 3
"""The largest body must fit into the memory for large ones: it reserves twice its length, of two thirds."""

STREAM_BUFFER = 64 * 1024

LEAST_READ = 64 * 1024
"""Bytes that a slow client must read within the write timeout. A large frame, such as a picture, may take it longer."""


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """Limits for clients, also in the table [limits] of the TOML file"""

    max_connections: Annotated[int | None, Ge(1), Shown(default="half of the open files")] = None
    """The largest number of client connections of one process.

    Beyond it, idle connections are closed; if none is idle, requests other than `/health` and `/ready` get a 503. By
    default half of the files that the operating system lets a process open, since each client may need a second
    connection, to Dify."""
    idle_timeout: Seconds = 65
    """Time after which a connection without a request is closed.

    Clients and load balancers should reuse connections for a shorter time."""
    max_head_bytes: Annotated[Bytes, Ge(4096)] = 64 * 1024
    """The largest request head: request line and headers. A larger one gets a 431."""
    max_headers: Annotated[int, Ge(16)] = 256
    """The number of headers of one request. A request with more gets a 431."""
    max_url_bytes: Bytes = 16 * 1024
    """The longest URL of a request. A longer one gets a 414."""
    head_timeout: Seconds = 10
    """Time limit for the head of a request, from its first byte; then a 408."""
    max_pipelined_requests: Annotated[int, Ge(1)] = 16
    """The number of requests of one connection that may wait for an earlier answer; then reading pauses."""
    head_memory: Annotated[Bytes, Ge(64 * 1024)] = 16 * 1024 * 1024
    """The memory for incomplete heads and waiting requests of one process.

    Beyond it, the connections that hold the most are closed."""
    max_body_bytes: Bytes = 64 * 1024 * 1024
    """The largest request body. A larger one gets a 413."""
    body_rate_window: Seconds = 10
    """The period over which the rate of a request body is measured."""
    min_body_rate: Bytes = 16 * 1024
    """The lowest rate of a request body per second, averaged over `BODY_RATE_WINDOW`. A slower one gets a 408."""
    body_memory: Annotated[Bytes | None, Shown(default="three times `MAX_BODY_BYTES`")] = None
    """The memory for the request bodies of one process; at least three times `MAX_BODY_BYTES`.

    A body reserves twice its length, before it is read. Those above 1 MiB hold it until their answer begins, and have
    two thirds of the memory."""
    body_memory_timeout: Seconds = 30
    """Time limit for the wait for `BODY_MEMORY`; then a 503."""
    stream_buffer: Annotated[Bytes, Ge(4096)] = STREAM_BUFFER
    """The bytes of one stream that wait for a slow client, beyond the frame that is being sent.

    Beyond it, the proxy reads no more of Dify's stream."""
    stream_memory: Annotated[Bytes, Ge(64 * 1024)] = 64 * 1024 * 1024
    """The memory for bytes that wait for slow clients, of all streams of one process.

    Beyond it, the streams of slow clients pause."""
    write_timeout: Seconds = 60
    """How long a client may take to read what was sent of an answer, or 64 KiB of it.

    It is then disconnected, and the run of its stream is stopped."""
    key_check_concurrency: Annotated[int, Ge(1)] = 1
    """The number of new [Dify keys in requests](api.md#keys) that one process checks at once.

    A key is new until Dify has accepted it."""
    key_check_queue: Annotated[int, Ge(2)] = 200
    """The number of requests that may wait for the check of a new Dify key, at most half of them from one address.

    A further one gets a 503."""
    key_check_timeout: Seconds = 30
    """Time limit for the check of a new Dify key, including the wait for other checks; then a 504."""
    key_check_pause: SecondsOrNone = 10
    """How long a Dify key that Dify rejected is not checked again."""

    @property
    def memory_for_bodies(self) -> int:
        """The memory for the request bodies of one process, in bytes."""
        return self.body_memory or BODY_MEMORY_FACTOR * self.max_body_bytes
