"""The flow of data on one client connection: when reading and writing pause, and unread bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

from openai_dify_proxy.server.lazy_event import LazyEvent
from openai_dify_proxy.server.write_buffers import WriteBuffers
from openai_dify_proxy.settings.limits import LEAST_READ

RESERVED_BYTES = 64 * 1024
"""Reserved for a slow stream that continues, until its next write: no less than one read of Dify's stream brings."""


class Flow(FlowControl):
    """Pauses reading while data that has arrived waits to be parsed, and reports when the client reads again.

    The transport pauses writing as soon as it has to buffer anything, since the sockets' own buffers suffice.
    """

    def __init__(self, transport: asyncio.Transport, buffers: WriteBuffers) -> None:
        # As in the base class, whose event takes more memory.
        self._transport = transport
        self.read_paused = False
        self.write_paused = False
        self._is_writable_event = LazyEvent()
        self._is_writable_event.set()
        transport.set_write_buffer_limits(high=0)
        self.buffers = buffers
        self.reserved = False
        """Whether bytes are reserved for the next write."""
        self._counted = 0
        self._unsent = 0
        self._read_at: float | None = None
        self._held = False
        self.on_writable: Callable[[], object] | None = None

    def hold(self, held: bool) -> None:
        if held:
            self.pause_reading()
        released = self._held and not held
        self._held = held
        if released:
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self._held:
            super().resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_at = None
        self.reserved = False
        self._count(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self.close()
        if self.on_writable is not None:
            self.buffers.when_below_limit(self._continue)

    def close(self) -> None:
        """Count the buffered bytes as gone: they were sent, or the connection is closed."""
        self.buffers.forget(self._continue)
        self.reserved = False
        self._count(0)

    def release_reserved(self) -> None:
        """Count the reserved bytes as gone: they were written, and none had to be buffered."""
        self.reserved = False
        self._count(0)

    def is_stalled(self, now: float, timeout: float) -> bool:
        """Return whether the client has read less than ``LEAST_READ`` bytes in ``timeout`` seconds, while more waited.

        Called regularly while writing is paused; ``now`` is the loop's time. A response that is told when it becomes
        writable has a timeout of its own.
        """
        unsent = self._transport.get_write_buffer_size()
        if self._read_at is None or unsent <= self._unsent - LEAST_READ:
            self._unsent, self._read_at = unsent, now
        return self.on_writable is None and now - self._read_at >= timeout

    def _continue(self) -> None:
        if self.on_writable is not None and not self.write_paused:
            self.reserved = True
            self._count(RESERVED_BYTES)
            self.on_writable()

    def _count(self, size: int) -> None:
        change, self._counted = size - self._counted, size
        if change > 0:
            self.buffers.add(change)
        elif change:
            self.buffers.remove(-change)
