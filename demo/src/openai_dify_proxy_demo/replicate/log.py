"""A record of calls, predictions and downloads, which tests read from any thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openai_dify_proxy_demo.watched import Watched

LOG_LENGTH = 20_000
"""How many entries of each kind are remembered."""

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]


@dataclass(frozen=True)
class LoggedCall:
    """One HTTP request to the API; `body` is None where it has no JSON, `status` is that of the answer."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Without the token."""
    authorized: bool
    body: Any
    status: int | None
    """None where the connection was dropped."""
    at: float


@dataclass
class LoggedPrediction:
    """One creation that was accepted, and so would be paid. Times are those of `time.monotonic`."""

    id: str
    model: str
    prompt: str
    sent: Mapping[str, Any]
    """The inputs as they were sent, unknown ones too."""
    inputs: Mapping[str, Any]
    """The inputs as the model took them, with its defaults."""
    deployment: str | None
    prefer: str | None
    cancel_after: str | None
    created_at: float
    status: Status = "starting"
    history: list[Status] = field(default_factory=lambda: ["starting"])
    """The statuses that it had, in their order."""
    completed_at: float | None = None
    outputs: int = 0
    """How many pictures it made."""


@dataclass(frozen=True)
class LoggedCancel:
    """One call of the cancel route; `effective` if it ended a prediction."""

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
    """One request to the origin of outputs."""

    method: str
    path: str
    status: int | None
    at: float


@dataclass(frozen=True)
class LeakedToken:
    """An `Authorization` header that reached the origin of outputs, which must never see one."""

    path: str
    authorization: str


class ReplicateLog(Watched):
    """A record that grows while the scripted Replicate runs. Every method may be called from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: deque[LoggedCall] = deque(maxlen=LOG_LENGTH)
        self.predictions: deque[LoggedPrediction] = deque(maxlen=LOG_LENGTH)
        self.cancels: deque[LoggedCancel] = deque(maxlen=LOG_LENGTH)
        self.files: deque[LoggedFile] = deque(maxlen=LOG_LENGTH)
        self.downloads: deque[LoggedDownload] = deque(maxlen=LOG_LENGTH)
        self.leaked_tokens: deque[LeakedToken] = deque(maxlen=LOG_LENGTH)

    def creations(self, prompt: str | None = None) -> int:
        """How many predictions were accepted; with a prompt, those whose prompt holds it."""
        return sum(prompt is None or prompt in prediction.prompt for prediction in tuple(self.predictions))

    def attempts(self, prompt: str | None = None) -> int:
        """How many creations were asked for, whatever came of them."""
        return sum(
            call.method == "POST"
            and call.path.endswith("/predictions")
            and (prompt is None or prompt in str(call.body))
            for call in tuple(self.calls)
        )

    def clear(self) -> None:
        """Forget everything but the count of open requests."""
        self.change(self._clear)

    def summary(self) -> str:
        predictions = [(prediction.model, prediction.status) for prediction in self.predictions]
        calls = [(call.method, call.path, call.status) for call in self.calls]
        return f"predictions {predictions[-5:]}, cancels {list(self.cancels)[-5:]}, calls {calls[-5:]}"

    def _clear(self) -> None:
        for entries in (self.calls, self.predictions, self.cancels, self.files, self.downloads, self.leaked_tokens):
            entries.clear()
