"""The tables [keys.<name>] of the TOML file, and the settings of end users."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.settings.sources import load_settings

SECRET = "sk-0123456789abcdef"
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def load(toml: str, tmp_path: Path, env: Mapping[str, str] = {}) -> Settings:
    config = tmp_path / "proxy.toml"
    config.write_text(toml, encoding="utf-8")
    return load_settings(env=env, dotenv=None, config=config)


def problems(toml: str, tmp_path: Path, env: Mapping[str, str] = {}) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(toml, tmp_path, env)
    return caught.value.problems


def test_a_key_may_be_written_named_or_hashed(tmp_path: Path) -> None:
    toml = f'[keys.a]\nkey = "{SECRET}"\n[keys.b]\nkey_env = "KEY_B"\n[keys.c]\nkey_hash = "{HASH}"\n'
    settings = load(toml, tmp_path, {"KEY_B": "sk-of-the-environment"})
    keys = [key.key and key.key.get_secret_value() for key in settings.keys.values()]
    assert keys == [SECRET, "sk-of-the-environment", None]
    assert settings.keys["c"].key_hash == HASH
    assert settings.number_of_keys == 3
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2027-01-31", 1801353600),
        ('"2027-01-31"', 1801353600),
        ("2027-01-31T01:00:00+01:00", 1801353600),
        ("2027-01-31T00:00:00", 1801353600),
        ('"2027-01-31T00:00:01Z"', 1801353601),
    ],
)
def test_an_expiry_is_a_date_or_time(tmp_path: Path, value: str, seconds: float) -> None:
    assert load(f'[keys.a]\nkey = "{SECRET}"\nexpires = {value}\n', tmp_path).keys["a"].expires == seconds


@pytest.mark.parametrize("value", ['"5 USD, 3.50 eur"', '{USD = 5, EUR = "3.50"}', '{usd = "5", EUR = "3.50"}'])
def test_prices_are_exact_amounts_by_currency(tmp_path: Path, value: str) -> None:
    key = load(f'[keys.a]\nkey = "{SECRET}"\ndaily_price = {value}\n', tmp_path).keys["a"]
    assert key.daily_price == {"USD": "5", "EUR": "3.50"}


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "[keys.a] in {file} has no key. Set one of key, key_env, key_hash"),
        (f'key = "{SECRET}"\nkey_hash = "{HASH}"', "[keys.a] in {file} has both key and key_hash: remove one"),
        ('key_env = "NO_SUCH"', "key_env of [keys.a] in {file} names NO_SUCH, which is set neither in"),
        (
            f'key = "{SECRET}"\nmodel = "x"',
            "model of [keys.a] in {file} is not a setting of a client key: did you mean",
        ),
        (f'key = "{SECRET}"\ndaily_turns = 0', "daily_turns of [keys.a] in {file} must be an integer of at least 1"),
        (f'key = "{SECRET}"\nexpires = "soon"', "expires of [keys.a] in {file} must be a date or time"),
        (f'key = "{SECRET}"\nmonthly_price = 5', "monthly_price of [keys.a] in {file} must be amounts"),
        (f'key = "{SECRET}"\nmodels = []', "models of [keys.a] in {file} must not be empty"),
    ],
)
def test_wrong_tables_are_reported_with_their_place(tmp_path: Path, table: str, problem: str) -> None:
    (found,) = problems(f"[keys.a]\n{table}\n", tmp_path)
    assert found.startswith(problem.format(file=tmp_path / "proxy.toml"))
    assert SECRET not in found


def test_one_key_has_one_name(tmp_path: Path) -> None:
    toml = f'[keys.a]\nkey = "{SECRET}"\n[keys.b]\nkey = "{SECRET}"\n'
    assert [problem.split(" in ")[0] for problem in problems(toml, tmp_path)] == ["[keys.b]"]
    (found,) = problems(f'[keys.a]\nkey = "{SECRET}"\n', tmp_path, {"API_KEYS": SECRET})
    assert "has the key of API_KEYS or PERSONAL_KEYS" in found


def test_named_keys_count_as_client_keys(tmp_path: Path) -> None:
    env = {"HOST": "0.0.0.0", "DIFY_API_URL": "http://dify.test", "DIFY_API_KEY": "app-1"}
    assert load(f'[keys.a]\nkey = "{SECRET}"\n', tmp_path, env).unprotected is None
    toml = f'[keys.a]\nkey = "{SECRET}"\n[keys.b]\nkey_hash = "{HASH}"\n'
    (found,) = problems(toml, tmp_path, {"END_USER_ID": "plain"})
    assert found.startswith("END_USER_ID in the environment can be plain with a single client key only")


def test_a_short_named_key_is_warned_about(tmp_path: Path) -> None:
    (warning,) = load('[keys.a]\nkey = "short"\n', tmp_path).warnings
    assert warning.startswith("[keys.a] has a key of fewer than 16 characters")


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({"OPENWEBUI_JWT_SECRET": "short"}, "must have at least 16 characters"),
        ({"END_USER_HEADERS": "X User"}, "must be names of headers"),
        ({"END_USER_HEADERS": "Authorization"}, "must not be a header with a key"),
        ({"CHAT_ID_HEADERS": "x-chat-id,cookie"}, "must not be a header with a key"),
    ],
)
def test_wrong_settings_of_end_users(tmp_path: Path, env: dict[str, str], problem: str) -> None:
    (found,) = problems("", tmp_path, env)
    assert problem in found


def test_header_names_are_folded(tmp_path: Path) -> None:
    env = {"END_USER_HEADERS": "X-User, x-other ", "OPENWEBUI_JWT_HEADER": "X-Token"}
    settings = load("", tmp_path, env)
    assert settings.end_user_headers == ("x-user", "x-other")
    assert settings.openwebui_jwt_header == "x-token"
