"""Access to recordings of real Dify servers, and the properties that the demo is compared by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parents[2] / "tests" / "recordings"


@dataclass(frozen=True)
class Recording:
    """A recorded response: status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def events(self) -> list[dict[str, Any]]:
        return read_events(self.body)

    def json(self) -> Any:
        return json.loads(self.body)


def recording(version: str, name: str) -> Recording:
    raw = (RECORDINGS / f"dify-{version}" / f"{name}.response.txt").read_bytes()
    head, _, body = raw.replace(b"\r\n", b"\n").partition(b"\n\n")
    status_line, *lines = head.decode().split("\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Recording(int(status_line.split()[1]), headers, body)


def read_events(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a stream. A ping, which has no data, becomes `{"event": "ping"}`."""
    frames = [frame for frame in body.split(b"\n\n") if frame.strip()]
    return [json.loads(frame[5:]) if frame.startswith(b"data:") else {"event": "ping"} for frame in frames]


def order(events: list[dict[str, Any]]) -> list[str]:
    """Return the names of the events, with kind and status of nodes. Repeated names and pairs of names count once."""
    names: list[str] = []
    for event in events:
        names.append(_name(event))
        for length in (1, 2):
            if len(names) >= 2 * length and names[-length:] == names[-2 * length : -length]:
                del names[-length:]
    return names


def fields(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return every path of keys in each kind of event, in order. Content of users and models is skipped."""
    found: dict[str, list[str]] = {}
    for event in events:
        paths = found.setdefault(_name(event), [])
        paths += [path for path in _paths(event) if path not in paths]
    return found


_OPAQUE = ("inputs", "outputs", "tool_labels", "reasoning")


def _paths(value: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, inner in value.items():
        paths.append(prefix + key)
        if isinstance(inner, dict) and key not in _OPAQUE:
            paths += _paths(inner, f"{prefix}{key}.")
    return paths


def _name(event: dict[str, Any]) -> str:
    data = event.get("data", {})
    kind, status = data.get("node_type"), data.get("status")
    return " ".join(part for part in (event["event"], kind, status) if part)
