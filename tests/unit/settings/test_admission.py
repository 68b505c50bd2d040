"""The settings of admission, and the table ``[dify]``."""

from __future__ import annotations

from pathlib import Path

import pytest

from openai_dify_proxy.cli.banner import concurrent_turns
from openai_dify_proxy.settings import Settings, SettingsError, decode_settings, encode_settings
from openai_dify_proxy.settings.sources import load_settings
from openai_dify_proxy.turns.admission.limits import has_limit

OWN, CLOUD = "http://dify.example/v1", "https://api.dify.ai/v1"


def load(toml: str, path: Path, **env: str) -> Settings:
    config = path / "proxy.toml"
    config.write_text(toml)
    return load_settings(env=env, dotenv=None, config=config)


@pytest.mark.parametrize(
    ("value", "expected"), [("auto", "auto"), ("AUTO", "auto"), (" off ", "off"), ("1", 1), ("1000", 1000)]
)
def test_max_concurrent(value: str, expected: str | int) -> None:
    settings = load_settings(env={"DIFY_MAX_CONCURRENT": value}, dotenv=None)
    assert settings.dify_max_concurrent == expected
    assert decode_settings(encode_settings(settings)).dify_max_concurrent == expected


@pytest.mark.parametrize("value", ["0", "-1", "1001", "2.5", "on", "ten", "true"])
def test_invalid_max_concurrent(value: str) -> None:
    with pytest.raises(SettingsError) as invalid:
        load_settings(env={"DIFY_MAX_CONCURRENT": value}, dotenv=None)
    expected = f"must be auto, off, or a whole number from 1 to 1000, not {value!r}"
    assert invalid.value.problems == [f"DIFY_MAX_CONCURRENT in the environment {expected}"]


def test_table(tmp_path: Path) -> None:
    settings = load('[dify]\nmax_concurrent = 20\napi_url = "http://dify.example"', tmp_path)
    assert (settings.dify_max_concurrent, settings.dify_api_url) == (20, OWN)
    assert load("dify_max_concurrent = 20", tmp_path).dify_max_concurrent == 20
    assert load("[dify]\nmax_concurrent = 20", tmp_path, DIFY_MAX_CONCURRENT="off").dify_max_concurrent == "off"


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[dify]\nmax_concurent = 20", "max_concurent of [dify] in {} is not a setting: did you mean max_concurrent?"),
        ("[dify]\nport = 20", "port of [dify] in {} is not a setting"),
        ("dify = 3", "dify in {} must be a table: write [dify], and its settings below"),
        (
            "[dify]\nmax_concurrent = true",
            "max_concurrent of [dify] in {} must be auto, off, or a whole number from 1 to 1000, not True",
        ),
    ],
)
def test_invalid_table(tmp_path: Path, toml: str, problem: str) -> None:
    with pytest.raises(SettingsError) as invalid:
        load(toml, tmp_path)
    assert invalid.value.problems == [problem.format(tmp_path / "proxy.toml")]


@pytest.mark.parametrize(
    ("value", "url", "expected"),
    [("auto", OWN, True), ("auto", CLOUD, False), ("off", OWN, False), ("5", CLOUD, True), ("5", OWN, True)],
)
def test_which_difys_have_a_limit(value: str, url: str, expected: bool) -> None:
    settings = load_settings(env={"DIFY_MAX_CONCURRENT": value, "DIFY_API_URL": url}, dotenv=None)
    assert has_limit(settings, url) is expected


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({}, "as many as Dify serves, from 8 on; 100 more wait"),
        ({"DIFY_MAX_CONCURRENT": "20", "MAX_QUEUED_TURNS": "7"}, "20; 7 more wait"),
        ({"DIFY_MAX_CONCURRENT": "off"}, "no limit"),
        ({"DIFY_API_URL": CLOUD}, "no limit"),
    ],
)
def test_description_for_the_operator(env: dict[str, str], shown: str) -> None:
    assert concurrent_turns(load_settings(env={"DIFY_API_URL": OWN} | env, dotenv=None)) == shown
