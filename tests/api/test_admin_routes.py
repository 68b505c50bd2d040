"""Who may use the routes of operators."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from openai_dify_proxy.api.authentication import Authenticator
from openai_dify_proxy.errors import AuthenticationFailed, PermissionDenied
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.turns.callers import ANONYMOUS

KEY = "sk-client-one-0123456789"


def request(host: str = "127.0.0.1:8223", **headers: str) -> Request:
    raw = [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers.items())]
    return Request({"type": "http", "method": "GET", "path": "/metrics", "headers": raw})


def test_a_client_key_that_is_no_admin_key_gets_a_403() -> None:
    authenticator = Authenticator(Settings(api_keys=(SecretStr(KEY),)))
    with pytest.raises(PermissionDenied) as refused:
        authenticator.admit_admin(request(authorization=f"Bearer {KEY}"))
    assert refused.value.code == "admin_key_required"


@pytest.mark.parametrize("key", ["", "Bearer sk-wrong", "Bearer app-of-dify"])
def test_a_request_without_a_client_key_gets_a_401(key: str) -> None:
    authenticator = Authenticator(Settings(api_keys=(SecretStr(KEY),)))
    with pytest.raises(AuthenticationFailed):
        authenticator.admit_admin(request(authorization=key))


def test_programs_of_the_machine_are_admitted_where_no_keys_are_set() -> None:
    authenticator = Authenticator(Settings())
    assert authenticator.admit_admin(request()) is ANONYMOUS
    with pytest.raises(PermissionDenied):
        authenticator.admit_admin(request("proxy.example"))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_open_server_has_no_admins(host: str) -> None:
    authenticator = Authenticator(Settings(host=host, allow_anonymous=True))
    with pytest.raises(PermissionDenied):
        authenticator.admit_admin(request())
