"""The limits for clients, and the table ``[limits]``."""

from __future__ import annotations

from pathlib import Path

import pytest

from openai_dify_proxy.settings import SettingsError
from openai_dify_proxy.settings.sources import load_settings


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        (
            {"MAX_BODY_BYTES": "1MB", "BODY_MEMORY": "2MB"},
            "BODY_MEMORY in the environment must be at least three times MAX_BODY_BYTES, which is 3145728 bytes",
        ),
        ({"MAX_HEADERS": "15"}, "MAX_HEADERS in the environment must be an integer of at least 16"),
        ({"STREAM_BUFFER": "4095"}, "STREAM_BUFFER in the environment must be at least 4096"),
        ({"KEY_CHECK_QUEUE": "1"}, "KEY_CHECK_QUEUE in the environment must be an integer of at least 2"),
        ({"WRITE_TIMEOUT": "0"}, "WRITE_TIMEOUT in the environment must be greater than 0"),
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


def test_table(tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text('[limits]\nstream_buffer = "16KB"\nhead_timeout = "5s"\nmax_connections = 20\n')
    settings = load_settings(env={"HEAD_TIMEOUT": "7"}, dotenv=None, config=config)
    assert (settings.stream_buffer, settings.head_timeout, settings.max_connections) == (16_384, 7, 20)


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[limits]\nstream_bufer = 1", "stream_bufer of [limits] in {} is not a setting: did you mean stream_buffer?"),
        ("[limits]\nport = 1", "port of [limits] in {} is not a setting"),
        ("limits = 1", "limits in {} must be a table: write [limits], and its settings below"),
        ("[limits]\nmax_headers = 1", "max_headers of [limits] in {} must be an integer of at least 16, not 1"),
    ],
)
def test_invalid_table(tmp_path: Path, toml: str, problem: str) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text(toml)
    with pytest.raises(SettingsError) as invalid:
        load_settings(env={}, dotenv=None, config=config)
    assert invalid.value.problems == [problem.format(config)]
