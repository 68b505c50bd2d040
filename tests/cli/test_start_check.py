"""``serve`` checks the apps in the background when it starts."""

from __future__ import annotations

import signal
import time

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import Program
from tests.limits import PATIENCE


def test_problems_of_apps_are_logged_once_at_the_start(program: Program) -> None:
    with DemoServer() as demo:
        assert_logged_once(program, demo)


def assert_logged_once(program: Program, demo: DemoServer) -> None:
    config = program.directory / "apps.toml"
    config.write_text('[apps.good]\napi_key = "app-demo-chat"\n[apps.bad]\napi_key = "app-wrong"\n')
    env = {"DIFY_API_URL": demo.url, "CONFIG_FILE": str(config), "WORKERS": "2"}
    with program.start("serve", "--port", "0", **env) as server:
        server.url()
        deadline = time.monotonic() + PATIENCE
        while "app_problem_found" not in server.logged:
            assert time.monotonic() < deadline, server.logged
            time.sleep(0.01)
        assert server.end(signal.SIGTERM) == 0
        found = [line for line in server.logged.splitlines() if "app_problem_found" in line]
    assert len(found) == 1
    assert "app=bad" in found[0]
    assert "rejected the app's key" in found[0]
    assert "app-wrong" not in server.logged
