"""``GET /ready`` is 503 only if the process itself is at fault."""

from __future__ import annotations

from pathlib import Path

import httpx2
from structlog.testing import capture_logs

from openai_dify_proxy.api import storage_check
from tests.api.chat_requests import chat_body
from tests.api.conftest import Serve
from tests.api.servers import app_settings
from tests.api.test_state_faults import full_disk


async def test_a_server_that_works_is_ready(serve: Serve, http: httpx2.AsyncClient) -> None:
    reply = await http.get(f"{serve().origin}/ready")
    assert (reply.status_code, reply.json()["status"], reply.json()["problems"]) == (200, "ready", [])


async def test_a_refused_key_is_a_problem_and_no_fault(serve: Serve, http: httpx2.AsyncClient) -> None:
    url = serve().settings.dify_api_url
    assert url is not None
    proxy = serve(
        apps={"good": app_settings("good", "app-demo-chat", url), "bad": app_settings("bad", "app-wrong", url)}
    )
    for model, status in (("good", 200), ("bad", 502)):
        reply = await http.post(f"{proxy.url}/chat/completions", json=chat_body("hi", model))
        assert reply.status_code == status
    reply = await http.get(f"{proxy.origin}/ready")
    assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
    assert reply.json()["problems"] == ["Dify refuses the keys of 1 of 2 apps."]


async def test_a_state_that_cannot_be_written_is_a_fault(
    serve: Serve, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    proxy = serve(state_url=f"sqlite:///{tmp_path}/state.db")
    await http.post(f"{proxy.url}/chat/completions", json=chat_body("x" * 4000, "demo-chat"))
    with full_disk(10), capture_logs():
        reply = await http.get(f"{proxy.origin}/ready")
    assert reply.status_code == 503, reply.text
    assert reply.json()["error"]["code"] == "state_unavailable"
    assert reply.json()["error"]["message"] == storage_check.STATE_UNWRITABLE


async def test_a_valkey_that_does_not_answer_is_no_fault(serve: Serve, http: httpx2.AsyncClient) -> None:
    proxy = serve(state_url="redis://127.0.0.1:9/0")
    reply = await http.get(f"{proxy.origin}/ready")
    assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
    assert reply.json()["problems"] == [storage_check.STATE_UNWRITABLE]


async def test_a_directory_of_pictures_that_cannot_be_written_is_a_fault(
    serve_images: Serve, http: httpx2.AsyncClient
) -> None:
    proxy = serve_images(image_storage_dir="/proc/self")  # where root may not write either
    reply = await http.get(f"{proxy.origin}/ready")
    assert reply.status_code == 503
    assert reply.json()["error"]["message"] == storage_check.PICTURES_UNWRITABLE


async def test_a_directory_of_pictures_that_is_a_file_is_a_fault(
    serve_images: Serve, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    proxy = serve_images(image_storage_dir=str(tmp_path / "file"))
    reply = await http.get(f"{proxy.origin}/ready")
    assert reply.status_code == 503
