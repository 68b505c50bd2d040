"""The log of the scripted Replicate: calls, predictions, files and downloads."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openai_dify_proxy_demo.waitable_log import WaitableLog

LOG_LENGTH = 20_000
"""The maximum number of entries of each kind; the oldest are dropped."""

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]


@dataclass(frozen=True)
class LoggedCall:
    """One HTTP request to the API. `body` is None without a JSON body."""

    method: str
    path: str
    headers: Mapping[str, str]
    """All request headers except `Authorization`."""
    authorized: bool
    body: Any
    status: int | None
    """The response status, or None for an aborted connection."""
    at: float


@dataclass
class LoggedPrediction:
    """One accepted creation, which Replicate would bill. Times are readings of `time.monotonic`."""

    id: str
    model: str
    prompt: str
    sent: Mapping[str, Any]
    """The inputs as sent, including unknown ones."""
    inputs: Mapping[str, Any]
    """The inputs of the model, including defaults."""
    deployment: str | None
    prefer: str | None
    cancel_after: str | None
    created_at: float
    status: Status = "starting"
    history: list[Status] = field(default_factory=lambda: ["starting"])
    """All statuses so far, in order."""
    completed_at: float | None = None
    outputs: int = 0
    """The number of pictures produced."""


@dataclass(frozen=True)
class LoggedCancel:
    """One call of the cancel route. `effective` is true if it ended a prediction."""

    prediction_id: str
    effective: bool
    at: float


@dataclass
class LoggedFile:
    """One upload."""

    id: str
    name: str
    content_type: str
    size: int
    sha256: str
    deleted: bool = False


@dataclass(frozen=True)
class LoggedDownload:
    """One request to the output origin."""

    method: str
    path: str
    status: int | None
    at: float


@dataclass(frozen=True)
class LeakedToken:
    """An `Authorization` header sent to the output origin, which no client should send."""

    path: str
    authorization: str


class ReplicateLog(WaitableLog):
    """The log of one scripted Replicate."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: deque[LoggedCall] = deque(maxlen=LOG_LENGTH)
        self.predictions: deque[LoggedPrediction] = deque(maxlen=LOG_LENGTH)
        self.cancels: deque[LoggedCancel] = deque(maxlen=LOG_LENGTH)
        self.files: deque[LoggedFile] = deque(maxlen=LOG_LENGTH)
        self.downloads: deque[LoggedDownload] = deque(maxlen=LOG_LENGTH)
        self.leaked_tokens: deque[LeakedToken] = deque(maxlen=LOG_LENGTH)

    def creations(self, prompt: str | None = None) -> int:
        """Return the number of accepted creations; with `prompt`, only those whose prompt contains it."""
        return sum(prompt is None or prompt in prediction.prompt for prediction in tuple(self.predictions))

    def attempts(self, prompt: str | None = None) -> int:
        """Return the number of creation requests, accepted or not."""
        return sum(
            call.method == "POST"
            and call.path.endswith("/predictions")
            and (prompt is None or prompt in str(call.body))
            for call in tuple(self.calls)
        )

    def clear(self) -> None:
        """Delete all entries. The count of open requests is unchanged."""
        self.change(self._clear)

    def summary(self) -> str:
        predictions = [(prediction.model, prediction.status) for prediction in self.predictions]
        calls = [(call.method, call.path, call.status) for call in self.calls]
        return f"predictions {predictions[-5:]}, cancels {list(self.cancels)[-5:]}, calls {calls[-5:]}"

    def _clear(self) -> None:
        for entries in (self.calls, self.predictions, self.cancels, self.files, self.downloads, self.leaked_tokens):
            entries.clear()
