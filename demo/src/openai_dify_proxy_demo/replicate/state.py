"""The state of one scripted Replicate: predictions, outputs, uploaded files and the clock."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime as dt
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from openai_dify_proxy_demo.common import store_bounded
from openai_dify_proxy_demo.replicate.log import LoggedFile, LoggedPrediction, ReplicateLog, Status
from openai_dify_proxy_demo.replicate.models import DemoModel
from openai_dify_proxy_demo.replicate.painting import paint
from openai_dify_proxy_demo.replicate.rendering import PredictionFailedError, Rendered, encode_png
from openai_dify_proxy_demo.replicate.script import ReplicateScript, Throttle

MAX_STORED = 500
"""The maximum number of predictions, of outputs and of files; the oldest are dropped."""

TERMINAL: frozenset[Status] = frozenset({"succeeded", "failed", "canceled", "aborted"})


@dataclass(frozen=True)
class ReplicateTiming:
    """The delays and lifetimes of the scripted Replicate, in seconds."""

    start: float = 0.2
    """Time in `starting`, unless `COLD` sets it."""
    run: float = 0.8
    """Time in `processing`, unless `SLOW` sets it; with `PARTIAL`, per picture."""
    settle: float = 0.05
    """Between the last output and `succeeded`."""
    second: float = 1.0
    """The length of one second of `Prefer: wait=N` and of `Cancel-After`."""
    output_lifetime: float = 3600.0
    file_lifetime: float = 24 * 3600.0


DEMO_PACE = ReplicateTiming()
"""A picture takes a second."""

INSTANT = ReplicateTiming(start=0.0, run=0.0, settle=0.0)
"""No delays except those that a prompt requests, such as `SLOW`."""


@dataclass(frozen=True)
class StoredOutput:
    """One picture that the output origin serves."""

    path: str
    rendered: Rendered
    script: ReplicateScript
    created_at: float


@dataclass(frozen=True)
class StoredFile:
    """One file of the Files API: an upload, or an output with `FILE`."""

    id: str
    name: str
    content_type: str
    data: bytes
    metadata: dict[str, Any]
    created_at: float
    record: LoggedFile | None = None


@dataclass
class Prediction:
    """One accepted prediction. Times are those of the state's clock."""

    id: str
    model: DemoModel
    reported_version: str
    inputs: dict[str, Any]
    script: ReplicateScript
    base_url: str
    created_at: float
    record: LoggedPrediction
    deployment: str | None = None
    deadline: float | None = None
    status: Status = "starting"
    outputs: list[StoredOutput] = field(default_factory=list)
    complete: bool = False
    """Whether all outputs exist; the status may still be `processing`."""
    error: str | None = None
    logs: str = ""
    seed: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    polls: int = 0
    has_outputs: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first outputs are available, and at the end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Status] | None = None


class ReplicateState:
    """The state of one scripted Replicate. The API's thread writes outputs, the output origin's thread reads them."""

    def __init__(self, timing: ReplicateTiming, token: str, *, faults: bool = False) -> None:
        self.timing = timing
        self.token = token
        self.faults = faults
        """Whether fault keywords are commands."""
        self.output_origin = ""
        """The origin of the outputs, without a trailing slash; empty until it listens."""
        self.log = ReplicateLog()
        self.predictions: dict[str, Prediction] = {}
        self.files: dict[str, StoredFile] = {}
        self._outputs: dict[str, StoredOutput] = {}
        self._follow_ups: dict[str, str] = {}
        self._throttled: dict[str, int] = {}
        self._lock = threading.Lock()
        self._skipped = 0.0

    def now(self) -> float:
        """Return the seconds since 1970, plus the skipped time."""
        return time.time() + self._skipped

    def skip(self, seconds: float) -> None:
        """Advance the clock."""
        self._skipped += seconds

    def store(self, prediction: Prediction) -> None:
        store_bounded(self.predictions, prediction.id, prediction, MAX_STORED)

    def store_output(self, rendered: Rendered, script: ReplicateScript, name: str) -> StoredOutput:
        path = f"/xezq/{secrets.token_urlsafe(33)}/{name}.{rendered.extension}"
        stored = StoredOutput(path, rendered, script, self.now())
        with self._lock:
            store_bounded(self._outputs, path, stored, MAX_STORED)
            store_bounded(self._follow_ups, hashlib.sha256(rendered.data).hexdigest(), script.follow_up, MAX_STORED)
        return stored

    def output(self, path: str) -> StoredOutput | None:
        """Return an output that has not expired."""
        with self._lock:
            stored = self._outputs.get(path)
        return stored if stored and self.now() - stored.created_at < self.timing.output_lifetime else None

    def store_file(self, file: StoredFile) -> None:
        store_bounded(self.files, file.id, file, MAX_STORED)

    def file(self, identifier: str) -> StoredFile | None:
        """Return a file that has not expired."""
        stored = self.files.get(identifier)
        return stored if stored and self.now() - stored.created_at < self.timing.file_lifetime else None

    def data_removed(self, prediction: Prediction) -> bool:
        """Return whether the inputs and outputs have expired."""
        ended = prediction.completed_at
        return ended is not None and self.now() - ended >= self.timing.output_lifetime

    def count_throttled(self, prompt: str, throttle: Throttle) -> bool:
        """Count a creation, and return whether the script rejects it."""
        seen = self._throttled.get(prompt, 0)
        store_bounded(self._throttled, prompt, seen + 1, MAX_STORED)
        return seen < throttle.times

    def picture(self, uri: str) -> bytes:
        """Return the picture at a URI from a client. Raise PredictionFailedError if it is missing.

        Data URIs and the demo's own outputs and files are read. For any other URL the demo draws a picture.
        """
        stored = self._stored_data(uri)
        return encode_png(paint(uri, 0, (768, 512))) if stored is None else stored

    def follow_up(self, uri: str) -> str:
        """Return the keywords that the picture's prompt sets for predictions that use it."""
        try:
            data = self._stored_data(uri)
        except PredictionFailedError:
            return ""
        with self._lock:
            return self._follow_ups.get(hashlib.sha256(data or b"").hexdigest(), "")

    def _stored_data(self, uri: str) -> bytes | None:
        if uri.startswith("data:"):
            return _data_uri(uri)
        path = urlsplit(uri).path
        if self.output_origin and uri.startswith(self.output_origin):
            stored = self.output(path)
            if stored is None or stored.script.has("GONE"):
                raise PredictionFailedError(f"404 Client Error: Not Found for url: {uri}")
            return stored.rendered.data
        if "/v1/files/" in path:
            file = self.file(path.partition("/v1/files/")[2].partition("/")[0])
            if file is None:
                raise PredictionFailedError(f"404 Client Error: Not Found for url: {uri}")
            return file.data
        return None

    async def close(self) -> None:
        """Cancel all predictions, and wake the requests that wait for them."""
        for prediction in self.predictions.values():
            prediction.has_outputs.set()
            prediction.ended.set()
        tasks = [prediction.task for prediction in self.predictions.values() if prediction.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def new_identifier() -> str:
    """Return an id in Replicate's format: 26 letters and digits."""
    return base64.b32encode(secrets.token_bytes(17)).decode().lower()[:26]


def timestamp(seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _data_uri(uri: str) -> bytes:
    head, _, payload = uri.partition(",")
    if not head.endswith(";base64"):
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise PredictionFailedError("Incorrect padding") from error
