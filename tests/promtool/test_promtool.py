"""promtool's opinion of the alert rules, the configuration of Prometheus, and the metrics; for ``scripts/promtool``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve, demo, hot_path, http, log, predictions, replicate, serve_images
from tests.parts import ROOT

__all__ = ["demo", "hot_path", "http", "log", "predictions", "replicate", "serve_images"]

PROMETHEUS = ROOT / "deploy/prometheus"


def promtool(*arguments: str | Path, text: str = "") -> str:
    """Run promtool, and return its complaints."""
    command = [os.environ["PROMTOOL"], *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_the_configuration_and_its_rules_are_valid() -> None:
    assert promtool("check", "config", PROMETHEUS / "prometheus.yml") == ""
    assert promtool("check", "rules", PROMETHEUS / "alerts.yml") == ""


@pytest.mark.usefixtures("log")
async def test_the_metrics_are_those_that_prometheus_advises(serve_images: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve_images()
    for question, status in (("hi", 200), ("ERROR", 502)):
        reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body(question, "demo-chat"))
        assert reply.status_code == status
    reply = await http.post(f"{proxy.url}/images/generations", json={"prompt": "a fox"})
    assert reply.status_code == 200
    metrics = (await http.get(f"{proxy.origin}/metrics")).text
    assert "pictures_total" in metrics
    assert promtool("check", "metrics", text=metrics) == ""
    assert "no help text" in promtool("check", "metrics", text="unknown_total 1\n"), "promtool checks nothing"
