from __future__ import annotations

import pytest

from openai_dify_proxy.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        (
            {"MAX_BODY_BYTES": "1MB", "BODY_MEMORY": "2MB"},
            "BODY_MEMORY in the environment must be at least three times MAX_BODY_BYTES, which is 3145728 bytes",
        ),
        (
            {"TRUSTED_PROXIES": "10.0.0.1, balancer"},
            'TRUSTED_PROXIES in the environment must be addresses or networks, such as "10.0.0.2" or "172.16.0.0/12"',
        ),
    ],
)
def test_problem(env: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as invalid:
        load_settings(env=env, dotenv=None)
    assert [text.removeprefix("One of ").partition(", not ")[0] for text in invalid.value.problems] == [problem]


def test_values() -> None:
    settings = load_settings(env={"MAX_BODY_BYTES": "1MB", "TRUSTED_PROXIES": "10.0.0.1,172.16.1.1/12"}, dotenv=None)
    assert settings.memory_for_bodies == 3 * 1024 * 1024
    assert settings.trusted_proxies == ("10.0.0.1/32", "172.16.0.0/12")
