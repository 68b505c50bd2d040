from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from openai_dify_proxy.settings import Settings
from openai_dify_proxy.turns.claim_timing import DEFAULT_TIMING, ClaimTiming
from openai_dify_proxy_demo import DEMO_APPS, INSTANT, DemoLog, DemoServer, Timing
from openai_dify_proxy_demo.replicate import INSTANT as INSTANT_PICTURES
from openai_dify_proxy_demo.replicate import DemoReplicate, ReplicateLog
from tests.api.image_requests import image_settings
from tests.api.servers import UNSPACED, ProxyServer, app_settings, counted_seconds, demo_apps
from tests.api.slots import MEMORY
from tests.cli.program import Program
from tests.limits import PATIENCE
from tests.movable_time import MovableLoop

Serve = Callable[..., ProxyServer]


@pytest.fixture(scope="session")
def demo() -> Iterator[DemoServer]:
    """A demo Dify whose clock gives each turn its own second, so that turns need no spacing."""
    with DemoServer(timing=INSTANT, faults=True, clock=counted_seconds()) as running:
        yield running


@pytest.fixture(scope="session")
def pinging_demo() -> Iterator[DemoServer]:
    """A demo Dify that pings every 50 ms."""
    with DemoServer(timing=Timing(token=0.0, ping=0.05, naming=0.0), faults=True) as running:
        yield running


SERVED_TWICE = frozenset(
    {
        "test_admission",
        "test_busy_conversations",
        "test_chat_answers",
        "test_chat_questions",
        "test_chat_streams",
        "test_client_disconnect",
        "test_conversation_forks",
        "test_conversation_history",
        "test_conversation_isolation",
        "test_end_users",
        "test_limits",
        "test_lost_conversations",
        "test_named_conversations",
        "test_request_log",
        "test_resumed_streams",
        "test_stop_calls",
        "test_write_timeout",
    }
)
"""The modules whose tests run twice: with the hot path, and with the application alone."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "hot_path" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in SERVED_TWICE:
        metafunc.parametrize("hot_path", [True, False], ids=["hot", "app"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def hot_path(request: pytest.FixtureRequest) -> bool:
    """Whether the proxy serves common requests on its hot path."""
    return bool(getattr(request, "param", True))


@pytest.fixture(scope="session")
def shared_proxy(demo: DemoServer, hot_path: bool) -> Iterator[ProxyServer]:
    settings = Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), default_app=None, dify_max_concurrent="off")
    with ProxyServer(settings, hot_path=hot_path) as running:
        yield running


@pytest.fixture
def log(demo: DemoServer) -> Iterator[DemoLog]:
    """The demo's log of this test. At the end of the test no turn may be running."""
    demo.log.clear()
    yield demo.log
    demo.log.wait(lambda log: log.open_requests == 0)


@pytest.fixture
def proxy(shared_proxy: ProxyServer, log: DemoLog) -> ProxyServer:
    """A proxy with all demo apps and default settings, shared by many tests."""
    return shared_proxy


@pytest.fixture(scope="session")
def clocked_demo() -> Iterator[DemoServer]:
    """A demo Dify on real time. Like Dify, it confuses turns of a conversation that start within one second."""
    with DemoServer(timing=INSTANT, faults=True) as running:
        yield running


@pytest.fixture(scope="session")
def spacing_proxy(clocked_demo: DemoServer, hot_path: bool) -> Iterator[ProxyServer]:
    """A proxy that spaces the turns of a conversation, as in production."""
    settings = Settings(dify_api_url=clocked_demo.url, apps=demo_apps(clocked_demo.url), dify_max_concurrent="off")
    with ProxyServer(settings, timing=DEFAULT_TIMING, hot_path=hot_path) as running:
        yield running


@pytest.fixture
def serve(demo: DemoServer, log: DemoLog, hot_path: bool) -> Iterator[Serve]:
    """Start a proxy for the demo with the settings of the test: ``serve(api_keys=("k",))``."""
    with ExitStack() as stack:

        def start(
            *, timing: ClaimTiming = UNSPACED, clock: Callable[[], float] = time.time, **settings: Any
        ) -> ProxyServer:
            settings.setdefault("dify_api_url", demo.url)
            settings.setdefault("apps", demo_apps(settings["dify_api_url"]))
            server = ProxyServer(Settings(**settings), timing=timing, clock=clock, hot_path=hot_path)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def limited(serve: Serve) -> Serve:
    """Start a proxy with a limit and a state of its own: ``limited(2)``."""

    def start(limit: int | str, **settings: Any) -> ProxyServer:
        settings.setdefault("state_url", MEMORY)
        return serve(dify_max_concurrent=limit, **settings)

    return start


@pytest.fixture(scope="session")
def raw_socket() -> Iterator[socket.socket]:
    """The listening socket for a test's own Dify: ``raw_dify(answer, at=raw_socket)``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(scope="session")
def raw_proxy(raw_socket: socket.socket, hot_path: bool) -> Iterator[ProxyServer]:
    """A proxy for the test's own Dify, with one app per mode: ``raw-chat`` and so on."""
    url = f"http://127.0.0.1:{raw_socket.getsockname()[1]}/v1"
    modes = [app.mode for app in DEMO_APPS]
    apps = {f"raw-{mode}": app_settings(f"raw-{mode}", f"app-raw-{mode}", url, mode=mode) for mode in modes}
    settings = Settings(dify_api_url=url, apps=apps, dify_max_concurrent="off")
    with ProxyServer(settings, hot_path=hot_path) as running:
        yield running


@pytest.fixture(scope="session")
def replicate() -> Iterator[DemoReplicate]:
    with DemoReplicate(timing=INSTANT_PICTURES, faults=True) as running:
        yield running


@pytest.fixture(scope="session")
def shared_image_proxy(
    demo: DemoServer, replicate: DemoReplicate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyServer]:
    settings = image_settings(replicate, tmp_path_factory.mktemp("pictures"))
    with ProxyServer(Settings(dify_api_url=demo.url, apps=demo_apps(demo.url), **settings)) as running:
        yield running


@pytest.fixture
def predictions(replicate: DemoReplicate) -> Iterator[ReplicateLog]:
    """The scripted Replicate's log of this test. At the end no prediction may be running and no token have leaked."""
    replicate.log.clear()
    yield replicate.log
    replicate.log.wait(lambda log: all(prediction.completed_at for prediction in log.predictions))
    replicate.log.wait(lambda log: log.open_requests == 0)
    assert not replicate.log.leaked_tokens
    assert all(call.authorized for call in replicate.log.calls)
    assert all(file.deleted for file in replicate.log.files)


@pytest.fixture
def image_proxy(shared_image_proxy: ProxyServer, predictions: ReplicateLog) -> ProxyServer:
    """A proxy with a scripted Replicate and default settings, shared by many tests."""
    return shared_image_proxy


@pytest.fixture
def serve_images(
    demo: DemoServer, replicate: DemoReplicate, predictions: ReplicateLog, tmp_path: Path
) -> Iterator[Serve]:
    """Start a proxy with image generation and the settings of the test: ``serve_images(image_timeout=2)``."""
    with ExitStack() as stack:

        def start(*, loop: MovableLoop | None = None, **settings: Any) -> ProxyServer:
            settings = {"dify_api_url": demo.url, "apps": demo_apps(demo.url)} | settings
            started = ProxyServer(Settings(**image_settings(replicate, tmp_path, **settings)), loop=loop)
            return stack.enter_context(started)

        yield start


@pytest.fixture
async def image_client(image_proxy: ProxyServer) -> AsyncIterator[AsyncOpenAI]:
    async with image_proxy.client() as openai:
        yield openai


@pytest.fixture
async def client(proxy: ProxyServer) -> AsyncIterator[AsyncOpenAI]:
    async with proxy.client() as openai:
        yield openai


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A plain HTTP client, for requests that the official client cannot send and responses that it would hide."""
    async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as plain:
        yield plain


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The console script, which runs in a separate process."""
    return Program(tmp_path)
