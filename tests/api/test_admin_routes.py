"""Who may use the routes of operators."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from openai_dify_proxy.api.authentication import Authenticator, key_directory
from openai_dify_proxy.errors import AuthenticationFailed, PermissionDenied
from openai_dify_proxy.keys.audit import AuditLog
from openai_dify_proxy.settings import ClientKeySettings, SecretStr, Settings
from openai_dify_proxy.telemetry.records import RequestRecord
from openai_dify_proxy.turns.callers import ANONYMOUS
from openai_dify_proxy.turns.client import EXTENSION

KEY, ROOT = "sk-client-one-0123456789", "sk-root-0123456789abcdef"
KEYS = {
    "anna": ClientKeySettings(name="anna", key=SecretStr(KEY)),
    "root": ClientKeySettings(name="root", key=SecretStr(ROOT), admin=True),
}


def authenticator_of(settings: Settings, audit: Path | str = "off") -> Authenticator:
    return Authenticator(settings, key_directory(settings, None), AuditLog(str(audit)))


def request(host: str = "127.0.0.1:8223", **headers: str) -> Request:
    raw = [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers.items())]
    extensions = {EXTENSION: {"responder": SimpleNamespace(record=RequestRecord())}}
    server = ("127.0.0.1", 8223)
    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "server": server}
    return Request({**scope, "headers": raw, "extensions": extensions})


def test_an_admin_key_is_admitted_and_any_other_client_key_gets_a_403() -> None:
    authenticator = authenticator_of(Settings(keys=KEYS))
    assert authenticator.admit_admin(request(authorization=f"Bearer {ROOT}")).name == "root"
    with pytest.raises(PermissionDenied) as refused:
        authenticator.admit_admin(request(authorization=f"Bearer {KEY}"))
    assert refused.value.code == "admin_key_required"


@pytest.mark.parametrize("key", ["", "Bearer sk-wrong", "Bearer app-of-dify"])
def test_a_request_without_a_client_key_gets_a_401(key: str) -> None:
    authenticator = authenticator_of(Settings(api_keys=(SecretStr(KEY),)))
    with pytest.raises(AuthenticationFailed):
        authenticator.admit_admin(request(authorization=key))


def test_programs_of_the_machine_are_admitted_where_no_keys_are_set() -> None:
    authenticator = authenticator_of(Settings())
    assert authenticator.admit_admin(request()) is ANONYMOUS
    with pytest.raises(PermissionDenied):
        authenticator.admit_admin(request("proxy.example"))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_open_server_has_no_admins(host: str) -> None:
    authenticator = authenticator_of(Settings(host=host, allow_anonymous=True))
    with pytest.raises(PermissionDenied):
        authenticator.admit_admin(request())


def test_the_audit_log_has_all_calls_but_routine_ones(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    authenticator = authenticator_of(Settings(keys=KEYS), audit)
    for key, routine in ((ROOT, False), (ROOT, True), (KEY, True)):
        try:
            authenticator.admit_admin(request(authorization=f"Bearer {key}"), routine=routine)
        except PermissionDenied:
            assert key == KEY
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["action"], line["by"], line["call"]) for line in lines] == [
        ("admin_call", "root", "GET /metrics"),
        ("admin_call_denied", "anna", "GET /metrics"),
    ]
    assert KEY not in audit.read_text()
    assert ROOT not in audit.read_text()
