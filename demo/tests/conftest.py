from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from demo.tests.replicate_caller import ReplicateCaller
from openai_dify_proxy_demo import DEMO_APPS, INSTANT, SPECIAL_APPS, DemoLog, DemoServer, Timing
from openai_dify_proxy_demo import replicate as scripted


@dataclass
class Clock:
    """A clock for the demo that tests set."""

    now: float = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


PATHS = {"completion": "/completion-messages", "workflow": "/workflows/run"}
MODES = {app.name: app.mode for app in (*DEMO_APPS, *SPECIAL_APPS)}


@dataclass
class Caller:
    """A client of the demo with defaults for everything but app and message."""

    server: DemoServer
    http: httpx2.Client

    @property
    def log(self) -> DemoLog:
        return self.server.log

    def body(self, app: str, question: str, **more: Any) -> dict[str, Any]:
        body = {"inputs": {}, "query": question, "user": "u1", "response_mode": "streaming"}
        if PATHS.get(self.mode(app)):
            body["inputs"] = {"query": question, "text": question}
        return {**body, "auto_generate_name": False, **more}

    def ask(self, app: str, question: str, **more: Any) -> httpx2.Response:
        """Send a message to `app`, such as `demo-chat@1.13`, and read the whole response."""
        return self.post(PATHS.get(self.mode(app), "/chat-messages"), app, self.body(app, question, **more))

    def post(self, path: str, app: str, body: Any) -> httpx2.Response:
        return self.http.post(self.server.url + path, headers=self.headers(app), json=body)

    def get(self, path: str, app: str, **params: str) -> httpx2.Response:
        return self.http.get(self.server.url + path, headers=self.headers(app), params=params)

    def headers(self, app: str) -> dict[str, str]:
        return {"Authorization": f"Bearer app-{app}"}

    def mode(self, app: str) -> str:
        return MODES[app.partition("@")[0]]


@pytest.fixture(scope="session")
def server() -> Iterator[DemoServer]:
    """The demo of all tests without special timing."""
    with DemoServer(timing=INSTANT, faults=True) as running:
        yield running


@pytest.fixture(scope="session")
def brisk_server() -> Iterator[DemoServer]:
    """A demo that pings every 50 ms and ends a silent stream after 0.3 s."""
    with DemoServer(timing=Timing(token=0.0, ping=0.05, hang=0.3, naming=0.0), faults=True) as running:
        yield running


@pytest.fixture(scope="session")
def pinging_server() -> Iterator[DemoServer]:
    """A demo that pings every 50 ms."""
    with DemoServer(timing=Timing(token=0.0, ping=0.05, naming=0.0), faults=True) as running:
        yield running


@pytest.fixture(scope="session")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60) as client:
        yield client


@pytest.fixture
def demo(server: DemoServer, http: httpx2.Client) -> Caller:
    return Caller(server, http)


@pytest.fixture
def brisk(brisk_server: DemoServer, http: httpx2.Client) -> Caller:
    return Caller(brisk_server, http)


@pytest.fixture
def pinging(pinging_server: DemoServer, http: httpx2.Client) -> Caller:
    return Caller(pinging_server, http)


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def timed_server(clock: Clock) -> Iterator[DemoServer]:
    with DemoServer(timing=Timing(token=0.0, naming=0.0, hang=0.3), clock=clock) as running:
        yield running


@pytest.fixture
def timed(timed_server: DemoServer, http: httpx2.Client) -> Caller:
    """A caller of a demo whose clock only advances when a test advances it."""
    timed_server.log.clear()
    return Caller(timed_server, http)


@pytest.fixture(scope="session")
def replicate_server() -> Iterator[scripted.DemoReplicate]:
    """The scripted Replicate of all tests without special timing."""
    timing = scripted.ReplicateTiming(start=0.0, run=0.0, settle=0.0, second=0.2)
    with scripted.DemoReplicate(timing=timing, faults=True) as running:
        yield running


@pytest.fixture
def replicate(replicate_server: scripted.DemoReplicate, http: httpx2.Client) -> ReplicateCaller:
    replicate_server.log.clear()
    return ReplicateCaller(replicate_server, http)
