"""``check`` and ``apps``, against a Dify that behaves as real ones do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from openai_dify_proxy_demo import DEMO_APPS, SPECIAL_APPS, DemoServer
from tests.cli.program import Program
from tests.cli.tables import findings, row
from tests.state.servers import ValkeyServer, valkey_program


def check(program: Program, toml: str, url: str) -> tuple[int, str]:
    (program.directory / "apps.toml").write_text(toml)
    ended = program.run("check", "--config", "apps.toml", DIFY_API_URL=url)
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


def test_nothing_configured_checks_the_demo(program: Program) -> None:
    ended = program.run("check")
    assert ended.returncode == 0
    assert [row(ended.stdout, app.name)[1:4] for app in DEMO_APPS] == [["yes", "1.16.1", app.mode] for app in DEMO_APPS]


@pytest.mark.parametrize("version", ["1.11", "1.13", "1.16"])
def test_every_mode_of_every_version_works(program: Program, dify: DemoServer, version: str) -> None:
    # New Agents came with 1.16.
    modes = {app.mode: app.key for app in DEMO_APPS if app.mode != "agent" or version == "1.16"}
    toml = "".join(f'[apps.{mode}]\napi_key = "{key}@{version}"\n' for mode, key in modes.items())
    code, shown = check(program, toml, dify.url)
    assert code == 0
    for mode in modes:
        works, release_shown, mode_shown = row(shown, mode)[1:4]
        assert (works, mode_shown, release_shown.startswith(version)) == ("yes", mode, True)


def test_what_an_app_takes_and_has_is_shown(program: Program, dify: DemoServer) -> None:
    code, shown = check(program, '[apps.form]\napi_key = "app-demo-workflow-form"\n', dify.url)
    assert code == 0
    for text in ("subject (text-input)", "question (text-input, required) ← question", "words (number)", "citations"):
        assert text in shown
    assert findings(shown) == [
        (
            "note form: The app requires the input 'language', which OpenAI clients do not send. Set it in inputs of "
            "the app, or send it in `inputs` of each request."
        )
    ]


def test_inputs_of_the_settings_fill_required_inputs(program: Program, dify: DemoServer) -> None:
    toml = '[apps.topic]\napi_key = "app-demo-chat-topic"\ninputs = { topic = "bees" }\n'
    code, shown = check(program, toml, dify.url)
    assert (code, findings(shown)) == (0, [])
    assert "topic (text-input, required) ← settings" in shown
    assert "system_prompt (paragraph) ← system message" in shown


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        (
            'api_key = "app-nobody"',
            "Dify rejected the app's key: Access token is invalid. Set a valid key for this app; it starts with app-.",
        ),
        (
            'api_key = "app-demo-chat"\nmode = "workflow"',
            "mode is 'workflow' in the settings, but 'chat' in Dify. Correct it.",
        ),
        (
            'api_key = "app-demo-workflow"\ninput_variable = "quest"',
            (
                "input_variable names 'quest', which is not an input of the app. Its text inputs are: query, language. "
                "Use one of them, or remove input_variable."
            ),
        ),
        (
            'api_key = "app-demo-chat-topic"\nsystem_prompt = "input:rules"',
            (
                "system_prompt names 'rules', which is not an input of the app. Its text inputs are: topic, "
                "system_prompt. Use one of them, or remove system_prompt."
            ),
        ),
        (
            'api_key = "app-demo-chat-topic"\ninputs = { topics = "bees" }',
            (
                "inputs names 'topics', which is not an input of the app. Its inputs are: topic, system_prompt. "
                "Use one of them, or remove topics."
            ),
        ),
    ],
)
def test_what_keeps_an_app_from_serving(program: Program, dify: DemoServer, toml: str, problem: str) -> None:
    fine = '[apps.fine]\napi_key = "app-demo-chat"\n'
    code, shown = check(program, f"{fine}[apps.sick]\n{toml}\n", dify.url)
    assert code == 1
    assert (row(shown, "fine")[1], row(shown, "sick")[1]) == ("yes", "no")
    assert any(line.startswith(f"problem sick: {problem}") for line in findings(shown))


def test_a_wrong_input_variable_is_the_only_finding_about_it(program: Program, dify: DemoServer) -> None:
    _, shown = check(program, '[apps.one]\napi_key = "app-demo-workflow"\ninput_variable = "text"\n', dify.url)
    (found,) = findings(shown)
    assert found.startswith("problem one: input_variable names 'text', ")


@pytest.mark.parametrize(
    ("key", "more", "notes"),
    [
        ("app-demo-agent", 'audio_app = "one"\n', ["'Speech to Text' is off", "'Text to Speech' is off"]),
        ("app-demo-chat", 'audio_app = "one"\n', []),
        ("app-demo-chat", 'tools = "emulate"\n', ["Add a text input named 'tools'"]),
        ("app-demo-chat-tools", 'tools = "emulate"\n', []),
        ("app-demo-chat-topic", 'tools = "emulate"\n', []),
    ],
)
def test_apps_that_lack_what_their_use_needs(
    program: Program, dify: DemoServer, key: str, more: str, notes: list[str]
) -> None:
    app = (
        f'[apps.one]\napi_key = "{key}"\ninputs = {{ topic = "x" }}\n'
        if "topic" in key
        else f'[apps.one]\napi_key = "{key}"\n'
    )
    code, shown = check(program, more + app if "audio" in more else app + more, dify.url)
    assert code == 0
    found = findings(shown)
    assert len(found) == len(notes)
    assert all(note in line for note, line in zip(notes, found, strict=True))


def test_keys_are_not_shown(program: Program, dify: DemoServer) -> None:
    keys = [app.key for app in (*DEMO_APPS, *SPECIAL_APPS)] + ["app-nobody-knows-this"]
    toml = "".join(f'[apps.a{number}]\napi_key = "{key}"\n' for number, key in enumerate(keys))
    _, shown = check(program, toml, dify.url)
    listed = program.run("apps", "--config", "apps.toml", DIFY_API_URL=dify.url).stdout
    assert not [key for key in keys if key in shown or key in listed]


def test_a_dify_that_is_down(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    code, shown = check(program, '[apps.one]\napi_key = "app-demo-chat"\n', url)
    assert code == 1
    (found,) = findings(shown)
    assert found.startswith("problem one: Dify at 127.0.0.1:")
    assert found.endswith(f" Its Dify is {url}/v1.")
    assert row(shown, "one")[1:] == ["no", "", "", "", ""]
    code, shown = check(program, "", url)
    assert code == 1
    assert shown.startswith(f"problem {url}/v1: Dify at 127.0.0.1:")


def test_without_apps_the_dify_is_looked_for(program: Program, dify: DemoServer) -> None:
    code, shown = check(program, "", dify.url)
    assert code == 0
    assert shown.splitlines() == [
        f"{dify.url}: reachable. No apps are configured: requests must carry the key of their app.",
        "Image generation is off: REPLICATE_API_TOKEN is not set.",
        "Concurrent turns: as many as Dify serves, from 8 on; 100 more wait.",
        f"State (sqlite): {program.directory}/.local/share/openai-dify-proxy/state.db is writable.",
        "Client keys: 0 in the settings, 0 in the state.",
    ]


def test_an_unusable_state(program: Program, dify: DemoServer, tmp_path: Path) -> None:
    """The directory of its file is a file."""
    in_the_way = tmp_path / "taken"
    in_the_way.touch()
    ended = program.run("check", DIFY_API_URL=dify.url, STATE_URL=f"sqlite:///{in_the_way}/state.db")
    assert ended.returncode == 1
    (found,) = findings(ended.stdout)
    assert found == (
        f"problem State (sqlite): STATE_URL '{in_the_way}/state.db' cannot be created: {in_the_way} is not a "
        "directory. Set STATE_URL."
    )


def test_a_state_whose_user_may_not_count(program: Program, dify: DemoServer, tmp_path: Path) -> None:
    with ValkeyServer(valkey_program(), tmp_path / "valkey").running() as server:
        rights = ["~*", "+@all", "-eval"]
        server.ask("ACL", "SETUSER", "proxy", "reset", "on", ">only-for-tests", *rights)
        ended = program.run("check", DIFY_API_URL=dify.url, STATE_URL=server.url(userinfo="proxy:only-for-tests@"))
    assert ended.returncode == 1
    (found,) = findings(ended.stdout)
    assert "no permissions to run the 'eval' command. Check STATE_URL." in found


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_a_state_that_is_down(program: Program, dify: DemoServer, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"{scheme}://someone:hush@127.0.0.1:{taken.getsockname()[1]}"
    ended = program.run("check", DIFY_API_URL=dify.url, STATE_URL=url)
    assert ended.returncode == 1
    (found,) = findings(ended.stdout)
    assert found.startswith(f"problem State ({scheme}): ")
    assert found.endswith(". Check STATE_URL.")
    assert "hush" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("key", "note"),
    [
        (
            "app-demo-advanced-chat@1.13",
            "Dify 1.13.0 does not respond when a chatflow continues an unknown conversation.",
        ),
        ("app-demo-workflow@0.15", "This Dify does not report the mode of apps, so it was guessed."),
        ("app-demo-chat@0.15", "This Dify does not report the mode of apps, so it was guessed."),
    ],
)
def test_peculiarities_of_a_version(program: Program, dify: DemoServer, key: str, note: str) -> None:
    code, shown = check(program, f'[apps.one]\napi_key = "{key}"\n', dify.url)
    assert code == 0
    assert any(line.startswith(f"note one: {note}") for line in findings(shown))


# --- apps ------------------------------------------------------------------------------------------------------

TOML = """
default_app = "support"
[apps.support]
api_key = "app-1"
aliases = ["gpt-4o*", "o[13]"]
[apps.sales]
api_key = "app-2"
api_url = "https://other.test"
mode = "chatflow"
"""


def test_apps_are_listed_without_asking_anybody(program: Program) -> None:
    (program.directory / "apps.toml").write_text(TOML)
    ended = program.run("apps", CONFIG_FILE="apps.toml", DIFY_API_URL="http://dify.invalid")
    assert ended.returncode == 0
    assert row(ended.stdout, "support (default)")[1:] == ["gpt-4o*, o[13]", "detected", "http://dify.invalid/v1"]
    assert row(ended.stdout, "sales")[1:] == ["", "advanced-chat", "https://other.test/v1"]


def test_apps_as_json(program: Program) -> None:
    (program.directory / "apps.toml").write_text(TOML)
    ended = program.run("apps", "--json", "--config", "apps.toml", DIFY_API_URL="http://dify.invalid")
    assert json.loads(ended.stdout) == [
        {
            "model": "support",
            "default": True,
            "aliases": ["gpt-4o*", "o[13]"],
            "mode": None,
            "dify_api_url": "http://dify.invalid/v1",
        },
        {
            "model": "sales",
            "default": False,
            "aliases": [],
            "mode": "advanced-chat",
            "dify_api_url": "https://other.test/v1",
        },
    ]


def test_apps_when_nothing_is_configured_are_the_demo(program: Program) -> None:
    ended = program.run("apps", "--json")
    assert [app["model"] for app in json.loads(ended.stdout)] == [app.name for app in DEMO_APPS]


def test_apps_when_requests_bring_the_keys(program: Program) -> None:
    ended = program.run("apps", DIFY_API_URL="http://dify.invalid")
    assert ended.stdout == "No apps are configured. Requests must carry the key of an app in http://dify.invalid/v1.\n"


def test_all_results_are_printed_as_one_json_document(program: Program, dify: DemoServer) -> None:
    toml = '[apps.form]\napi_key = "app-demo-workflow-form"\n[apps.wrong]\napi_key = "app-nobody"\n'
    (program.directory / "apps.toml").write_text(toml)
    ended = program.run("check", "--json", "--config", "apps.toml", DIFY_API_URL=dify.url)
    assert (ended.returncode, ended.stderr) == (1, "")
    document = json.loads(ended.stdout)
    form, wrong = document["apps"]
    assert (form["works"], form["mode"], form["version"]) == (True, "workflow", "1.16.1")
    assert form["inputs"][1] == {"name": "question", "kind": "text-input", "required": True, "source": "question"}
    assert [finding["kind"] for finding in form["findings"] + wrong["findings"]] == ["note", "problem"]
    assert (document["works"], wrong["works"], wrong["mode"], wrong["inputs"]) == (False, False, None, [])
    assert [(part["part"].split(" ")[0], part["works"]) for part in document["parts"]] == [
        ("State", True),
        ("Client", True),
    ]


def test_json_of_the_demo_has_its_image_models(program: Program) -> None:
    document = json.loads(program.run("check", "--json").stdout)
    assert document["works"]
    assert "X-Replicate-Seed" in document["image_models"][0]["supported_headers"]
