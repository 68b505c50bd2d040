"""The errors of turns that a gate rejects."""

from __future__ import annotations

from typing import Protocol

from openai_dify_proxy.errors import ProxyError, QueueFull, QueueTimeout, TooManyTurns


class Rejections(Protocol):
    """The errors of one gate; ``seconds`` is when to send the request again."""

    def full(self, queued: int, seconds: int) -> ProxyError:
        """Return the error of a turn without a place in the queue, in which ``queued`` turns wait."""

    def timed_out(self, waited: float, seconds: int) -> ProxyError:
        """Return the error of a turn that has ``waited`` so many seconds."""


class DifyRejections:
    """The errors of a gate to a Dify."""

    def full(self, queued: int, seconds: int) -> ProxyError:
        return QueueFull(
            f"The queue for Dify is full ({queued} waiting). Send the request again in {seconds} s.",
            retry_after=seconds,
        )

    def timed_out(self, waited: float, seconds: int) -> ProxyError:
        return QueueTimeout(
            f"Dify was busy with other requests for {waited:g} s. Send the request again in {seconds} s.",
            retry_after=seconds,
        )


class CallerRejections:
    """The errors of the gate of a caller whose key limits its concurrent turns."""

    def full(self, queued: int, seconds: int) -> ProxyError:
        return TooManyTurns(
            f"This API key runs as many turns at once as it may, and {queued} more wait. "
            f"Send the request again in {seconds} s.",
            retry_after=seconds,
        )

    def timed_out(self, waited: float, seconds: int) -> ProxyError:
        return TooManyTurns(
            f"This API key has run as many turns at once as it may for {waited:g} s. "
            f"Send the request again in {seconds} s.",
            retry_after=seconds,
        )
