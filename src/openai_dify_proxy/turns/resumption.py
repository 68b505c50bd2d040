"""Reads on in the events of a run after its stream broke off (Dify 1.14 and later)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.errors import ProxyError, StreamCut
from openai_dify_proxy.events import Event, TurnFailed
from openai_dify_proxy.translate.dify.event_decoder import DifyEventDecoder
from openai_dify_proxy.upstream.exchange import Exchange

if TYPE_CHECKING:
    from openai_dify_proxy.turns.dify_stream import DifyStream

MAX_RESUMES = 2
"""How often a broken stream is resumed: 1.16.1 may cut the second reader of a run's events, but not the third."""

ATTACH_SECONDS = 15.0
"""How long Dify may take to send the first event of a resumed run, each time; pings do not count."""

Resume = Callable[["DifyStream"], Awaitable[Exchange]]
"""Closes the broken stream and requests the events of its run. Raises ProxyError."""


class Resumption(Entity):
    """The attempts of one turn. ``cut`` is the error of its first stream once that was resumed."""

    _resume: Resume | None
    """None once Dify has rejected an attempt."""
    cut: ProxyError | None = None
    _count: int = 0
    _decoder: DifyEventDecoder | None = None

    def begin(self, events: Sequence[Event], decoder: DifyEventDecoder) -> bool:
        """Prepare ``decoder`` for another stream if the last event reports a stream that broke off in mid-answer."""
        last = events[-1] if events else None
        if self._resume is None or self._count == MAX_RESUMES or not isinstance(last, TurnFailed):
            return False
        if not isinstance(last.error, StreamCut) or not decoder.resumable:
            return False
        self.cut = self.cut or last.error
        self._count += 1
        self._decoder = decoder
        decoder.resume()
        return True

    def attaching(self, decoder: DifyEventDecoder) -> bool:
        """Return whether ``decoder`` reads another stream of its run, which has not begun yet."""
        return decoder is self._decoder and not decoder.started

    def refuse(self, decoder: DifyEventDecoder) -> ProxyError | None:
        """Return the error of the first stream if Dify rejected the attempt to resume it. No other attempt follows."""
        if decoder is not self._decoder:  # that of another run
            return None
        self._resume = None
        return self.cut

    async def attach(self, before: DifyStream, decoder: DifyEventDecoder) -> tuple[Exchange, DifyEventDecoder]:
        """Return the next stream. Raises the error of the first one if that fails."""
        assert self._resume is not None
        assert self.cut is not None
        try:
            return await self._resume(before), decoder
        except ProxyError as error:
            raise self.cut from error
