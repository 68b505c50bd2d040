"""Path normalization."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.api.routing import normal_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1/v1/v1", "/v1"),
        ("/v1/models/", "/v1/models"),
        ("//v1//chat///completions//", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1//v1/models", "/v1/models"),
        ("/v1/v10/models", "/v1/v10/models"),
        ("/v1/models/v1/v1", "/v1/models/v1/v1"),
        ("/chat/completions/", "/chat/completions"),
    ],
)
def test_normal_path(path: str, expected: str) -> None:
    assert normal_path(path) == expected


@given(st.lists(st.sampled_from(["/", "v1", "/v1", "models", "..", "é"])).map(lambda parts: "/" + "".join(parts)))
def test_normalization_is_idempotent(path: str) -> None:
    normal = normal_path(path)
    assert normal_path(normal) == normal
    assert normal.startswith("/")
    assert "//" not in normal
