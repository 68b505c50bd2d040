"""Several workers with JSON logs under hostile requests: callers stay apart, and each line is one JSON object."""

from __future__ import annotations

import json
import signal
import socket

import httpx2

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import Program
from tests.limits import PATIENCE

KEYS = ("sk-victim-0123456789", "sk-other-9876543210")
SECRET = "violetUmbrella4711"

ODD = {
    "path": b"GET /v1/a\x1b[31mb%0a%0d%e2%80%a8%e2%80%ae%00c HTTP/1.1\r\nHost: x\r\n\r\n",
    "query": f"GET /v1/models?key={KEYS[0]} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "header": b'GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x1b[2J\xe2\x80\xa8b"}\r\n\r\n',
    "agent": b'GET /v1/models HTTP/1.1\r\nHost: x\r\nUser-Agent: {"event": "forged"}\t\x7f\r\n\r\n',
    "method": b'X"Y /v1/models HTTP/1.1\r\nHost: x\r\n\r\n',
    "key": b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer app-\xff\x1b\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "bytes": bytes(range(256)),
    "a large head": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
}


def send(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        except (ConnectionError, BrokenPipeError):
            pass


async def test_workers_with_json_logs(program: Program, demo: DemoServer, http: httpx2.AsyncClient) -> None:
    env = {"DIFY_API_URL": demo.url, "DIFY_API_KEY": "app-demo-chat", "API_KEYS": ",".join(KEYS)}
    arguments = ("serve", "--port", "0", "--workers", "2", "--log-format", "json", "--log-level", "debug")
    victim, other = ({"Authorization": f"Bearer {key}", "Connection": "close"} for key in KEYS)
    with program.start(*arguments, **env) as server:
        url = server.url()
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        body = {"model": "any", "input": f"SAY<<{SECRET}>>"}
        name = (await http.post(f"{url}/responses", json=body, headers=victim)).json()["id"]
        for data in ODD.values():
            for _ in range(2):
                send(port, data)
        for _ in range(8):  # each on its own connection, so that both workers answer
            assert (await http.get(f"{url}/responses/{name}", headers=victim)).status_code == 200
            assert (await http.get(f"{url}/responses/{name}", headers=other)).status_code == 404
            refused = await http.post(f"{url}/responses", json={**body, "previous_response_id": name}, headers=other)
            assert refused.status_code == 400
        assert server.end(signal.SIGTERM) == 0
        logged = server.logged
    lines = [json.loads(line) for line in logged.splitlines()]
    assert len(lines) >= 24
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert "forged" not in {line["event"] for line in lines}
    assert SECRET not in logged
    assert not any(key in logged for key in KEYS)
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in logged.replace("\n", ""))
