"""The setting ``STATE_URL``: valid and invalid values, and errors without passwords."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from openai_dify_proxy.settings import Settings, SettingsError, decode_settings, encode_settings
from openai_dify_proxy.settings.sources import load_settings

PASSWORD = "only/for%tests"


def load(env: Mapping[str, str]) -> Settings:
    return load_settings(env=env, dotenv=None)


def problems(env: Mapping[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(env)
    return caught.value.problems


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///state.db",
        "sqlite:////var/lib/proxy/state.db",
        "sqlite:///~/state.db",
        "memory://",
        "redis://127.0.0.1",
        "rediss://user:word@cache.test:6380/1?ssl_ca_certs=/etc/ca.pem",
        "valkey://cache.test:6379/0",
        "valkeys://[::1]:6379",
        "redis+cluster://cache.test:6379",
        "rediss+cluster://cache.test:6379",
        "valkey+cluster://cache.test:6379",
        "valkeys+cluster://cache.test:6379",
        "unix:///run/valkey.sock?db=1",
    ],
)
def test_a_state_url_is_unchanged_and_its_password_secret(url: str) -> None:
    settings = load({"STATE_URL": url})
    assert settings.state_url.get_secret_value() == url
    assert url not in repr(settings)
    assert decode_settings(encode_settings(settings)) == settings


SCHEMES = (
    "STATE_URL in the environment must begin with one of sqlite://, redis://, rediss://, valkey://, valkeys://, "
    "redis+cluster://, rediss+cluster://, valkey+cluster://, valkeys+cluster://, unix://, memory://"
)
A_FILE = (
    'STATE_URL in the environment must be the path of a file: "sqlite:///state.db", or '
    '"sqlite:////var/lib/proxy/state.db"'
)


def a_server(scheme: str) -> str:
    return (
        f'STATE_URL in the environment must name a server: "{scheme}://user:password@host:6379". Write special '
        "characters as %xx"
    )


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgres://x", SCHEMES),
        ("state.db", SCHEMES),
        ("redis:cache", SCHEMES),
        ("sqlite://state.db", A_FILE),
        ("sqlite:///", A_FILE),
        ("redis://", a_server("redis")),
        ("redis://:only/for%tests@cache.test", a_server("redis")),
        ("valkey://cache.test:port", a_server("valkey")),
        ("unix://", a_server("unix")),
    ],
)
def test_errors_about_a_state_url_do_not_contain_it(url: str, complaint: str) -> None:
    assert problems({"STATE_URL": url}) == [complaint]


def test_a_server_needs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    assert problems({"STATE_URL": f"redis://:{PASSWORD.replace('/', '%2f')}@cache.test"}) == [
        "STATE_URL in the environment requires an extra package. Install it: scripts/setup --extra redis"
    ]
    assert load({"STATE_URL": "sqlite:///state.db"}).workers == 1


def test_several_workers_cannot_have_their_state_in_memory() -> None:
    (problem,) = problems({"STATE_URL": "memory://", "WORKERS": "2"})
    assert problem == (
        "STATE_URL in the environment cannot be memory:// with WORKERS=2, since workers would not share "
        "conversations. Use sqlite:/// on one machine, redis:// or valkey:// on several"
    )
    assert load({"STATE_URL": "memory://", "WORKERS": "1"}).workers == 1


def test_the_file_is_below_the_folder_for_data() -> None:
    assert load({"XDG_DATA_HOME": "/data"}).state_url.get_secret_value() == (
        "sqlite:////data/openai-dify-proxy/state.db"
    )
    assert load({"XDG_DATA_HOME": "/data", "STATE_URL": "memory://"}).state_url.get_secret_value() == "memory://"


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("STATE_MAX_ENTRIES", "1000", "state_max_entries", 1000),
        ("STATE_MAX_BYTES", "512MB", "state_max_bytes", 536_870_912),
        ("CONVERSATION_TTL", "7d", "conversation_ttl", 604_800),
        ("CONVERSATION_TTL", "90", "conversation_ttl", 90),
    ],
)
def test_limits_are_understood(variable: str, text: str, field: str, value: float) -> None:
    assert getattr(load({variable: text}), field) == value


def test_limits_are_checked() -> None:
    assert problems({"STATE_MAX_ENTRIES": "0", "CONVERSATION_TTL": "0"}) == [
        "STATE_MAX_ENTRIES in the environment must be an integer of at least 1",
        "CONVERSATION_TTL in the environment must be greater than 0, not '0'",
    ]
