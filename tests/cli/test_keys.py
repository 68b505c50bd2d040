"""The commands ``keys …``, as people run them."""

from __future__ import annotations

import json
import re
import sqlite3
import stat

import pytest

from tests.cli.program import Program

SECRET = re.compile(r"sk-dify-[0-9a-f]{40}")
EVERYWHERE = {"HOST": "0.0.0.0", "DIFY_API_URL": "http://127.0.0.1:1", "DIFY_API_KEY": "app-1", "PORT": "0"}


def create(program: Program, *arguments: str) -> str:
    done = program.run("keys", "create", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def test_the_key_alone_is_on_standard_output_and_shown_only_once(program: Program) -> None:
    done = program.run("keys", "create", "anna", "--label", "Anna's laptop")
    secret = done.stdout.removesuffix("\n")
    assert SECRET.fullmatch(secret)
    assert "it is not shown again" in done.stderr
    state = program.directory / ".local/share/openai-dify-proxy/state.db"
    files = [*state.parent.iterdir()]
    assert all(secret[12:].encode() not in file.read_bytes() for file in files)
    for command in (["list"], ["list", "--json"], ["show", "anna"], ["show", "anna", "--json"]):
        shown = program.run("keys", *command)
        assert secret[:12] in shown.stdout
        assert secret[12:] not in shown.stdout + shown.stderr
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_all_options_are_stored_and_shown(program: Program) -> None:
    options = {
        "--label": "Support team",
        "--models": "support, sales-*",
        "--end-user": "anna",
        "--requests-per-minute": "60",
        "--tokens-per-minute": "100000",
        "--concurrent-turns": "4",
        "--daily-turns": "500",
        "--daily-tokens": "2000000",
        "--daily-price": "5 USD, 3.50 EUR",
        "--monthly-turns": "9000",
        "--monthly-tokens": "30000000",
        "--monthly-price": "80 USD",
        "--priority": "3",
        "--expires": "2099-01-31",
    }
    flags = [word for pair in options.items() for word in pair]
    made = json.loads(create(program, "anna", *flags, "--admin", "--json"))
    assert SECRET.fullmatch(made.pop("key"))
    shown = json.loads(program.run("keys", "show", "anna", "--json").stdout)
    assert shown == made
    assert shown["models"] == ["support", "sales-*"]
    assert shown["end_user"] == "anna"
    assert shown["expires_at"] == "2099-01-31T00:00:00Z"
    assert shown["admin"] is True
    assert shown["limits"] == {
        "requests_per_minute": 60,
        "tokens_per_minute": 100_000,
        "concurrent_turns": 4,
        "daily": {"turns": 500, "tokens": 2_000_000, "price": {"USD": "5", "EUR": "3.50"}},
        "monthly": {"turns": 9000, "tokens": 30_000_000, "price": {"USD": "80"}},
        "priority": 3,
    }


def test_tables_fit_80_columns(program: Program) -> None:
    create(program, "a-rather-long-name-of-a-key-of-a-team", "--models", "support-assistant,sales-*,hr-*,legal-*")
    create(program, "bert", "--daily-price", "5 USD", "--requests-per-minute", "60", "--expires", "90d")
    listed = program.run("keys", "list", API_KEYS="sk-of-the-settings-0123").stdout
    assert max(map(len, listed.splitlines())) <= 80
    assert {"a-rather-long-name-of-a-key-of-a-team", "bert"} <= set(listed.splitlines())
    assert "models: support-assistant, sales-*, hr-*, legal-*" in listed
    assert "(settings)" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a b"], "NAME must have at most 64 letters"),
        (["x", "--requests-per-minute", "0"], "--requests-per-minute must be an integer of at least 1, not '0'"),
        (["x", "--daily-price", "5"], "--daily-price must be amounts with their currencies"),
        (["x", "--daily-price", "-5 USD"], "--daily-price must be amounts above zero"),
        (["x", "--daily-price", "NaN USD"], "--daily-price must be amounts above zero"),
        (["x", "--expires", "soon"], "--expires must be a date or time"),
        (["x", "--expires", "2020-01-01"], "--expires is in the past"),
        (["x", "--priority", "11"], "--priority must be an integer from -10 to 10"),
        (["x", "--models", ""], "--models must not be empty"),
    ],
)
def test_wrong_options_create_nothing(program: Program, arguments: list[str], message: str) -> None:
    done = program.run("keys", "create", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert json.loads(program.run("keys", "list", "--json").stdout) == []


def test_a_name_is_taken_until_its_key_is_revoked(program: Program) -> None:
    create(program, "anna")
    again = program.run("keys", "create", "anna")
    assert (again.returncode, again.stdout) == (1, "")
    assert "There is a key 'anna' already" in again.stderr
    unasked = program.run("keys", "revoke", "anna")
    assert unasked.returncode == 1
    assert "Add --yes" in unasked.stderr
    assert program.run("keys", "revoke", "anna", "--yes").returncode == 0
    create(program, "anna")
    listed = json.loads(program.run("keys", "list", "--revoked", "--json").stdout)
    assert [key["revoked_at"] is None for key in listed] == [False, True]
    assert len({key["id"] for key in listed}) == 2, "a new key of the same name has a new identity"


def test_unknown_and_configured_keys_cannot_be_changed(program: Program) -> None:
    for command in (["show", "nobody"], ["rotate", "nobody"], ["revoke", "nobody", "--yes"]):
        done = program.run("keys", *command)
        assert done.returncode == 1
        assert "There is no key 'nobody'" in done.stderr
    (program.directory / "proxy.toml").write_text('[keys.anna]\nkey = "sk-0123456789abcdef"\nlabel = "Anna"\n')
    config = ["--config", "proxy.toml"]
    assert "Anna" in program.run("keys", "show", "anna", *config).stdout
    for command in (["rotate", "anna"], ["revoke", "anna", "--yes"], ["create", "anna"]):
        done = program.run("keys", *command, *config)
        assert done.returncode == 1
        assert "the settings" in done.stderr.lower()
    assert "run 'openai-dify-proxy reload'" in program.run("keys", "rotate", "anna", *config).stderr


def test_a_state_that_cannot_be_reached_is_named(program: Program) -> None:
    done = program.run("keys", "list", STATE_URL="redis://127.0.0.1:9/0")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The state cannot be used: ")
    assert done.stderr.endswith("('127.0.0.1', 9). Check STATE_URL.\n")


def test_memory_state_has_no_keys(program: Program) -> None:
    done = program.run("keys", "create", "anna", STATE_URL="memory://")
    assert done.returncode == 1
    assert "STATE_URL is memory://" in done.stderr


def test_changes_are_in_the_audit_log_and_never_the_key(program: Program) -> None:
    powers = ["--admin", "--models", "demo-*", "--end-user", "anna", "--expires", "2999-01-01"]
    first = create(program, "anna", "--requests-per-minute", "60", *powers)
    second = program.run("keys", "rotate", "anna", "--grace", "1h").stdout.strip()
    program.run("keys", "revoke", "anna", "--yes")
    path = program.directory / ".local/share/openai-dify-proxy/audit.jsonl"
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["action"], line["key"]) for line in lines] == [
        ("key_created", "anna"),
        ("key_rotated", "anna"),
        ("key_revoked", "anna"),
    ]
    assert lines[0]["limits"] == {"requests_per_minute": 60}
    assert (lines[0]["admin"], lines[0]["models"], lines[0]["end_user"]) == (True, ["demo-*"], "anna")
    assert lines[0]["expires_at"] == "2999-01-01T00:00:00Z"
    assert all(line["by"] and line["time"] for line in lines)
    assert first[12:] not in text
    assert second[12:] not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_the_audit_log_nothing_is_changed(program: Program) -> None:
    done = program.run("keys", "create", "anna", AUDIT_LOG=str(program.directory))
    assert done.returncode == 1
    assert "AUDIT_LOG cannot be written, so nothing was changed" in done.stderr
    assert json.loads(program.run("keys", "list", "--json").stdout) == []


def test_damaged_keys_are_reported_and_left_alone(program: Program) -> None:
    create(program, "anna")
    state = program.directory / ".local/share/openai-dify-proxy/state.db"
    connection = sqlite3.connect(state, isolation_level=None)
    connection.execute("UPDATE entries SET data = 'damaged' WHERE key = 'keys'")
    connection.close()
    done = program.run("keys", "create", "bert")
    assert done.returncode == 1
    assert "the entry 'keys' cannot be read" in done.stderr


def test_serve_and_check_want_a_key_before_they_open_credentials_to_strangers(program: Program) -> None:
    for command in ("serve", "check"):
        done = program.run(command, **EVERYWHERE)
        assert done.returncode in (1, 2)
        assert "openai-dify-proxy keys create NAME --admin" in done.stdout + done.stderr
    create(program, "root", "--admin")
    assert "keys create" not in program.run("check", **EVERYWHERE).stdout
    with program.start("serve", **EVERYWHERE) as running:
        assert running.until("Callers:").startswith("Callers: anyone with a client key")


def test_short_keys_are_warned_about(program: Program) -> None:
    done = program.run("check", API_KEYS="short", DIFY_API_URL="http://127.0.0.1:1", DIFY_API_KEY="app-1")
    assert "Warning: API_KEYS in the environment has a key of fewer than 16 characters" in done.stderr
