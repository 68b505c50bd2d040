from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest

from openai_dify_proxy.errors import AuthenticationFailed
from openai_dify_proxy.keys.user_tokens import LEEWAY, end_user_of_token

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000
CLAIMS = {"sub": "user-1", "email": "a@example.com", "iss": "open-webui", "iat": NOW, "exp": NOW + 300}
"""The claims of Open WebUI."""

HEADER = {"alg": "HS256", "typ": "JWT"}


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: Any = CLAIMS, header: Any = HEADER, secret: bytes = SECRET) -> str:
    text = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{text}.{encode(hmac.digest(secret, text.encode(), 'sha256'))}"


def test_the_end_user_of_a_token_made_by_another_program() -> None:
    """The example of RFC 7515, appendix A.1, whose claims lack a user."""
    key = base64.urlsafe_b64decode(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow=="
    )
    token = (
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
    with pytest.raises(AuthenticationFailed, match="lacks a user"):
        end_user_of_token(token, key, 1_300_819_379)
    with pytest.raises(AuthenticationFailed, match="this server's secret"):
        end_user_of_token(token, SECRET, 1_300_819_379)


@pytest.mark.parametrize(
    "claims",
    [CLAIMS, {"sub": "user-1", "exp": NOW + 0.5}, {**CLAIMS, "nbf": NOW + LEEWAY}, {**CLAIMS, "exp": NOW - LEEWAY + 1}],
)
def test_valid_tokens(claims: dict[str, object]) -> None:
    assert end_user_of_token(signed(claims), SECRET, NOW) == "user-1"


VALID = signed()
HEAD, BODY, SIGNATURE = VALID.split(".")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "not a signed token"),
        ("user-1", "not a signed token"),
        (f"{HEAD}.{BODY}", "not a signed token"),
        (f"{HEAD}.{BODY}.", "not a signed token"),
        (f"{VALID}.x", "not a signed token"),
        (f"{HEAD}.{BODY}.{SIGNATURE[:-1]}", "not a signed token"),
        (f"{HEAD}.{BODY}.{SIGNATURE}=", "not a signed token"),
        (f" {VALID}", "not a signed token"),
        (signed({**CLAIMS, "sub": "x" * 4096}), "not a signed token"),
        (f"{HEAD}.{BODY}.{'A' * 43}", "this server's secret"),
        (signed(secret=b"another secret of 32 characters!"), "this server's secret"),
        (f"{HEAD}.{encode(json.dumps({**CLAIMS, 'sub': 'admin'}).encode())}.{SIGNATURE}", "this server's secret"),
        (signed(header={"alg": "none"}), "not signed with HS256"),
        (signed(header={"alg": "hs256"}), "not signed with HS256"),
        (signed(header={"alg": "HS512"}), "not signed with HS256"),
        (signed(header={"alg": "RS256"}), "not signed with HS256"),
        (signed(header={**HEADER, "crit": ["exp"]}), "not signed with HS256"),
        (signed(header=[]), "cannot be read"),
        (signed(header={"typ": "JWT"}), "cannot be read"),
        (f"A.{BODY}.{SIGNATURE}", "cannot be read"),
        (signed({"sub": "user-1"}), "lacks a user or an expiry"),
        (signed({**CLAIMS, "exp": "tomorrow"}), "lacks a user or an expiry"),
        (signed({**CLAIMS, "exp": True}), "lacks a user or an expiry"),
        (signed({"exp": NOW + 300}), "lacks a user or an expiry"),
        (signed({**CLAIMS, "sub": 1}), "lacks a user or an expiry"),
        (signed({**CLAIMS, "sub": " "}), "lacks a user or an expiry"),
        (signed([]), "lacks a user or an expiry"),
        (signed({**CLAIMS, "exp": NOW - LEEWAY}), "has expired"),
        (signed({**CLAIMS, "nbf": NOW + LEEWAY + 1}), "is not valid yet"),
    ],
)
def test_tokens_that_name_nobody(token: str, reason: str) -> None:
    with pytest.raises(AuthenticationFailed, match=reason) as refused:
        end_user_of_token(token, SECRET, NOW)
    assert refused.value.code == "invalid_end_user_token"
    assert "user-1" not in refused.value.message
