"""Settings of conversations: the rule and its other names, the transcript's words, end users, side calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from openai_dify_proxy.settings import SecretStr, Settings, SettingsError, decode_settings, encode_settings
from openai_dify_proxy.settings.sources import load_settings
from openai_dify_proxy.translate.dify.transcript import TEMPLATE

DIFY = {"DIFY_API_URL": "http://127.0.0.1:1", "DIFY_MODEL_MAP": "support:app-1,cheap:app-2"}


def load(env: Mapping[str, str], config: Path | None = None) -> Settings:
    settings = load_settings(env={**DIFY, **env}, dotenv=None, config=config)
    assert decode_settings(encode_settings(settings)) == settings, "workers get other settings than their parent"
    return settings


def problems(env: Mapping[str, str], config: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(env={**DIFY, **env}, dotenv=None, config=config)
    return caught.value.problems


def toml(directory: Path, text: str) -> Path:
    file = directory / "proxy.toml"
    file.write_text(text)
    return file


def test_defaults() -> None:
    settings = load({})
    assert settings.conversations == "auto"
    assert settings.transcript_template == TEMPLATE
    assert settings.end_user_id == "derived"
    assert settings.personal_keys == ()
    assert settings.task_calls == "app"
    assert settings.task_model is None
    assert settings.conversation_ttl == 30 * 24 * 3600


# How earlier messages reach an app


@pytest.mark.parametrize("name", ["CONVERSATIONS", "CONVERSATION_MEMORY_MODE", "CONVERSATION_MODE", "MEMORY_MODE"])
@pytest.mark.parametrize("rule", ["auto", "transcript", "last-message", " Transcript ", "LAST-MESSAGE"])
def test_the_rule_has_other_names(name: str, rule: str) -> None:
    assert load({name: rule}).conversations == rule.strip().lower()


@pytest.mark.parametrize(
    ("rule", "meant"),
    [
        ("1", "transcript"),
        ("2", "auto"),
        ("3", "last-message"),
        ("none", "transcript"),
        ("all_messages", "transcript"),
        ("last_user_message", "last-message"),
    ],
)
def test_other_proxies_have_other_words_for_the_rules(tmp_path: Path, rule: str, meant: str) -> None:
    assert load({"CONVERSATION_MEMORY_MODE": rule}).conversations == meant
    value = rule if rule.isdigit() else f'"{rule}"'
    assert load({}, toml(tmp_path, f"conversations = {value}")).conversations == meant


def test_its_own_name_wins() -> None:
    assert load({"CONVERSATION_MEMORY_MODE": "transcript", "CONVERSATIONS": "last-message"}).conversations == (
        "last-message"
    )


@pytest.mark.parametrize("rule", ["forget", "true", "4", "0"])
def test_a_rule_that_there_is_not(rule: str) -> None:
    (problem,) = problems({"CONVERSATIONS": rule})
    assert problem == f"CONVERSATIONS in the environment must be 'auto', 'transcript' or 'last-message', not '{rule}'"


def test_an_app_may_have_a_rule_of_its_own(tmp_path: Path) -> None:
    config = toml(
        tmp_path,
        'conversations = "last-message"\n'
        '[apps.a]\napi_key = "app-3"\nconversations = "transcript"\n'
        '[apps.b]\napi_key = "app-4"\n',
    )
    settings = load({}, config)
    assert settings.conversations == "last-message"
    assert {name: app.conversations for name, app in settings.apps.items()} == {
        "a": "transcript",
        "b": None,
        "support": None,
        "cheap": None,
    }


def test_an_app_with_a_rule_that_there_is_not(tmp_path: Path) -> None:
    config = toml(tmp_path, '[apps.a]\napi_key = "app-3"\nconversations = "some"\n')
    (problem,) = problems({}, config)
    assert problem.startswith(f"conversations of [apps.a] in {config} must be 'auto', 'transcript' or 'last-message'")


# The transcript's words


@pytest.mark.parametrize(
    "template", ["{history}{question}", "Before:\n{history}\n\nNow: {question}!", "{history}\n{question}\n{x}"]
)
def test_a_template_is_unchanged(template: str) -> None:
    assert load({"TRANSCRIPT_TEMPLATE": template}).transcript_template == template


def test_line_ends_may_be_written_out_in_a_template() -> None:
    """A variable can hold none in many places."""
    assert load({"TRANSCRIPT_TEMPLATE": r"A:\n{history}\n\nB: {question}"}).transcript_template == (
        "A:\n{history}\n\nB: {question}"
    )


@pytest.mark.parametrize(
    "template",
    [
        "nothing",
        "{history}",
        "{question}",
        "{question}{history}",
        "{history}{history}{question}",
        "{history}{question}{question}",
        "{ history }{question}",
    ],
)
def test_a_template_holds_each_part_once_and_in_order(template: str) -> None:
    (problem,) = problems({"TRANSCRIPT_TEMPLATE": template})
    assert problem.startswith(
        "TRANSCRIPT_TEMPLATE in the environment must contain {history}, then {question}, each exactly once"
    )


# End users


def test_personal_keys_are_pairs_and_secret() -> None:
    settings = load({"PERSONAL_KEYS": " sk-one=anna , sk-two==bert,sk-three=carl@example.com,", "API_KEYS": "shared"})
    keys = [(key.get_secret_value(), end_user) for key, end_user in settings.personal_keys]
    assert keys == [("sk-one", "anna"), ("sk-two=", "bert"), ("sk-three", "carl@example.com")]
    assert settings.client_keys == ((SecretStr("shared"), None), *settings.personal_keys)
    assert "sk-" not in repr(settings)
    assert "shared" not in repr(settings)


@pytest.mark.parametrize("keys", ["sk-one", "sk-one=", "=anna", "sk-one=anna,sk-two"])
def test_personal_keys_that_are_no_pairs(keys: str) -> None:
    (problem,) = problems({"PERSONAL_KEYS": keys})
    assert problem == (
        'PERSONAL_KEYS in the environment must be pairs of a key and an end user: "sk-one=anna,sk-two=bert"'
    )


def test_an_invalid_personal_key_is_not_shown() -> None:
    (problem,) = problems({"PERSONAL_KEYS": "sk-söcret=anna"})
    assert "cret" not in problem
    assert problem.startswith("One of PERSONAL_KEYS in the environment")


@pytest.mark.parametrize("keys", [{}, {"API_KEYS": "one"}, {"PERSONAL_KEYS": "one=anna"}])
def test_plain_names_where_there_is_a_single_client(keys: dict[str, str]) -> None:
    assert load({"END_USER_ID": " Plain ", **keys}).end_user_id == "plain"


@pytest.mark.parametrize(
    "keys",
    [{"API_KEYS": "one,two"}, {"PERSONAL_KEYS": "one=anna,two=bert"}, {"API_KEYS": "one", "PERSONAL_KEYS": "two=bert"}],
)
def test_plain_names_of_several_clients_are_refused(keys: dict[str, str]) -> None:
    (problem,) = problems({"END_USER_ID": "plain", **keys})
    assert problem == (
        "END_USER_ID in the environment can be plain with a single client key only. "
        "With several, end users with the same name would share their conversations in Dify"
    )


def test_a_way_to_name_end_users_that_there_is_not() -> None:
    (problem,) = problems({"END_USER_ID": "hashed"})
    assert problem == "END_USER_ID in the environment must be 'derived' or 'plain', not 'hashed'"


# Side calls


@pytest.mark.parametrize("who", ["app", "off", " OFF "])
def test_who_answers_side_calls(who: str) -> None:
    assert load({"TASK_CALLS": who}).task_calls == who.strip().lower()


def test_side_calls_are_answered_by_an_app_or_nobody() -> None:
    (problem,) = problems({"TASK_CALLS": "never"})
    assert problem == "TASK_CALLS in the environment must be 'app' or 'off', not 'never'"


def test_an_app_for_side_calls() -> None:
    assert load({"TASK_MODEL": "cheap"}).task_model == "cheap"


def test_an_app_for_side_calls_must_be_there() -> None:
    (problem,) = problems({"TASK_MODEL": "cheep"})
    assert problem == "TASK_MODEL in the environment is not the name of a configured app: did you mean cheap?"


# How long


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("90s", 90), ("2h", 7200), ("7d", 604800)])
def test_the_lifetime_of_conversations(text: str, seconds: float) -> None:
    assert load({"CONVERSATION_TTL": text}).conversation_ttl == seconds


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf"])
def test_no_time_to_keep_conversations(text: str) -> None:
    (problem,) = problems({"CONVERSATION_TTL": text})
    assert problem.startswith("CONVERSATION_TTL in the environment must be")
