from __future__ import annotations

import pytest

from openai_dify_proxy.settings.sources import load_settings

APP = {"DIFY_API_URL": "http://dify.test", "DIFY_API_KEY": "app-1"}


@pytest.mark.parametrize(
    ("env", "held"),
    [
        ({**APP, "CORS_ORIGINS": "*"}, "the Dify keys"),
        ({"CORS_ORIGINS": "*", "REPLICATE_API_TOKEN": "r8_1"}, "the Replicate token"),
        (
            {**APP, "CORS_ORIGINS": "https://a.test,*", "REPLICATE_API_TOKEN": "r8_1"},
            "the Dify keys and the Replicate token",
        ),
    ],
)
def test_any_page_could_spend_the_servers_keys(env: dict[str, str], held: str) -> None:
    (warning,) = load_settings(env=env, dotenv=None).warnings
    assert warning == (
        "CORS_ORIGINS in the environment is * without client keys: any web page that a user of this server opens can "
        f"use {held}. Set API_KEYS, or list the origins of your own pages"
    )


@pytest.mark.parametrize(
    "env",
    [
        {**APP, "CORS_ORIGINS": "*", "API_KEYS": "k" * 16},
        {**APP, "CORS_ORIGINS": "https://a.test"},
        {"CORS_ORIGINS": "*"},
        APP,
    ],
)
def test_other_settings_need_no_warning(env: dict[str, str]) -> None:
    assert load_settings(env=env, dotenv=None).warnings == ()


@pytest.mark.parametrize(
    ("env", "origins"),
    [
        ({"API_KEYS": "k" * 15}, ["API_KEYS in the environment"]),
        ({"API_KEYS": f"{'k' * 16},short,shorter"}, ["API_KEYS in the environment"]),
        ({"VALID_API_KEYS": "short"}, ["VALID_API_KEYS in the environment"]),
        ({"PERSONAL_KEYS": "short=anna"}, ["PERSONAL_KEYS in the environment"]),
        (
            {"API_KEYS": "short", "PERSONAL_KEYS": f"{'k' * 16}=anna,{'k' * 15}=bert"},
            ["API_KEYS in the environment", "PERSONAL_KEYS in the environment"],
        ),
        ({"API_KEYS": "k" * 16, "PERSONAL_KEYS": f"{'p' * 16}=anna"}, []),
    ],
)
def test_keys_that_can_be_guessed(env: dict[str, str], origins: list[str]) -> None:
    warnings = load_settings(env={**APP, **env}, dotenv=None).warnings
    assert [warning.partition(" has a key")[0] for warning in warnings] == origins
    assert all("fewer than 16 characters" in warning and "short," not in warning for warning in warnings)
