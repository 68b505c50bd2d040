"""The scripted Replicate's memory: predictions, outputs, uploaded files and the time."""

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

from openai_dify_proxy_demo.common import remember
from openai_dify_proxy_demo.replicate.log import LoggedFile, LoggedPrediction, ReplicateLog, Status
from openai_dify_proxy_demo.replicate.models import DemoModel
from openai_dify_proxy_demo.replicate.painting import paint
from openai_dify_proxy_demo.replicate.renders import PredictionFailedError, Rendered, encoded_png
from openai_dify_proxy_demo.replicate.script import ReplicateScript, Throttle

KEPT = 500
"""How many predictions, outputs and files are remembered, of each the newest."""

TERMINAL: frozenset[Status] = frozenset({"succeeded", "failed", "canceled", "aborted"})


@dataclass(frozen=True)
class ReplicateTiming:
    """Every duration of the scripted Replicate, in seconds."""

    start: float = 0.2
    """In `starting`; `COLD` names another one."""
    run: float = 0.8
    """In `processing`; `SLOW` names another one. With `PARTIAL`, for each picture."""
    settle: float = 0.05
    """Between the last output and `succeeded`."""
    second: float = 1.0
    """How long a second of `Prefer: wait=N` and of `Cancel-After` takes."""
    output_lifetime: float = 3600.0
    file_lifetime: float = 24 * 3600.0


DEMO_PACE = ReplicateTiming()
"""A picture takes a second."""

INSTANT = ReplicateTiming(start=0.0, run=0.0, settle=0.0)
"""No waiting; what a prompt asks for, such as `SLOW`, still takes its time."""


@dataclass(frozen=True)
class StoredOutput:
    """One picture at the origin of outputs."""

    path: str
    rendered: Rendered
    script: ReplicateScript
    made_at: float


@dataclass(frozen=True)
class StoredFile:
    """One file of the Files API; also what `FILE` makes of an output."""

    id: str
    name: str
    content_type: str
    data: bytes
    metadata: dict[str, Any]
    created_at: float
    record: LoggedFile | None = None


@dataclass
class Prediction:
    """One accepted prediction; times are those of the state's clock."""

    id: str
    model: DemoModel
    shown_version: str
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
    """All outputs are there, though the status may not say so yet."""
    error: str | None = None
    logs: str = ""
    seed: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    polls: int = 0
    has_outputs: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first output that may be shown, and by the end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Status] | None = None


class ReplicateState:
    """All that one scripted Replicate knows. Outputs are read from another thread than they are written in."""

    def __init__(self, timing: ReplicateTiming, token: str, *, faults: bool = False) -> None:
        self.timing = timing
        self.token = token
        self.faults = faults
        """Whether prompts may ask for faults."""
        self.output_origin = ""
        """Where outputs are served, without a slash; known once that origin listens."""
        self.log = ReplicateLog()
        self.predictions: dict[str, Prediction] = {}
        self.files: dict[str, StoredFile] = {}
        self._outputs: dict[str, StoredOutput] = {}
        self._follow_ups: dict[str, str] = {}
        self._throttled: dict[str, int] = {}
        self._lock = threading.Lock()
        self._skipped = 0.0

    def now(self) -> float:
        """The time, as seconds since 1970."""
        return time.time() + self._skipped

    def skip(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self._skipped += seconds

    def keep(self, prediction: Prediction) -> None:
        remember(self.predictions, prediction.id, prediction, KEPT)

    def keep_output(self, rendered: Rendered, script: ReplicateScript, name: str) -> StoredOutput:
        path = f"/xezq/{secrets.token_urlsafe(33)}/{name}.{rendered.extension}"
        stored = StoredOutput(path, rendered, script, self.now())
        with self._lock:
            remember(self._outputs, path, stored, KEPT)
            remember(self._follow_ups, hashlib.sha256(rendered.data).hexdigest(), script.follow_up, KEPT)
        return stored

    def output(self, path: str) -> StoredOutput | None:
        """An output that is not yet too old."""
        with self._lock:
            stored = self._outputs.get(path)
        return stored if stored and self.now() - stored.made_at < self.timing.output_lifetime else None

    def keep_file(self, file: StoredFile) -> None:
        remember(self.files, file.id, file, KEPT)

    def file(self, identifier: str) -> StoredFile | None:
        """A file that is not yet too old."""
        stored = self.files.get(identifier)
        return stored if stored and self.now() - stored.created_at < self.timing.file_lifetime else None

    def data_removed(self, prediction: Prediction) -> bool:
        """Whether the hour after which inputs and outputs are erased is over."""
        ended = prediction.completed_at
        return ended is not None and self.now() - ended >= self.timing.output_lifetime

    def is_throttled(self, prompt: str, throttle: Throttle) -> bool:
        """Whether this creation is one of those that the script refuses; counts it."""
        seen = self._throttled.get(prompt, 0)
        remember(self._throttled, prompt, seen + 1, KEPT)
        return seen < throttle.times

    def picture(self, uri: str) -> bytes:
        """The picture at a URI that a client sent; raises PredictionFailedError where there is none.

        Only what the demo itself holds is read. For every other address a picture is drawn.
        """
        held = self._held(uri)
        return encoded_png(paint(uri, 0, (768, 512))) if held is None else held

    def follow_up(self, uri: str) -> str:
        """The keywords that the prompt of a picture of the demo's holds for those that use it."""
        try:
            data = self._held(uri)
        except PredictionFailedError:
            return ""
        with self._lock:
            return self._follow_ups.get(hashlib.sha256(data or b"").hexdigest(), "")

    def _held(self, uri: str) -> bytes | None:
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
        """End all predictions, and whatever waits for them."""
        for prediction in self.predictions.values():
            prediction.has_outputs.set()
            prediction.ended.set()
        tasks = [prediction.task for prediction in self.predictions.values() if prediction.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def new_identifier() -> str:
    """An identifier as predictions have it: 26 letters and digits."""
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
