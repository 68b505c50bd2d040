"""Which source of a setting wins, which forms a value may have, and the errors about wrong ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest

from openai_dify_proxy.settings import SecretStr, Settings, SettingsError, decode_settings, encode_settings, is_loopback
from openai_dify_proxy.settings.names import ALIASES, VARIABLES
from openai_dify_proxy.settings.sources import load_settings
from openai_dify_proxy.translate.tool_template import TEMPLATE as TOOLS_TEMPLATE

URL = {"DIFY_API_URL": "http://dify.test/v1"}
KEY = "app-Xk3jT9sQwLm2PzR7vB1nC4dY"


def load(env: Mapping[str, str] = {}, *, toml: Path | None = None, **overrides: object) -> Settings:
    return load_settings(env=env, dotenv=None, config=toml, overrides=overrides)


def problems(env: Mapping[str, str] = {}, *, toml: Path | None = None, **overrides: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(env, toml=toml, **overrides)
    return caught.value.problems


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "proxy.toml"


def test_defaults() -> None:
    settings = load()
    assert asdict(settings) == {
        "host": "127.0.0.1",
        "port": 8223,
        "workers": 1,
        "dify_api_url": None,
        "dify_api_key": None,
        "api_keys": (),
        "personal_keys": (),
        "keys": {},
        "keys_max_age": 300,
        "audit_log": "~/.local/share/openai-dify-proxy/audit.jsonl",
        "unprotected": None,
        "end_user_headers": ("x-openwebui-user-id",),
        "openwebui_jwt_secret": None,
        "openwebui_jwt_header": "x-openwebui-user-jwt",
        "chat_id_headers": (
            "x-openwebui-chat-id",
            "x-conversation-id",
            "x-chat-id",
            "x-session-id",
            "session-id",
            "session_id",
            "conversation-id",
            "chat-id",
        ),
        "allow_anonymous": False,
        "passthrough_keys": True,
        "cors_origins": (),
        "log_level": "info",
        "log_format": "console",
        "log_end_users": False,
        "metrics_open": False,
        "usage_days": 90,
        "console": True,
        "shutdown_delay": 0,
        "max_body_bytes": 67_108_864,
        "max_connections": None,
        "idle_timeout": 65,
        "max_head_bytes": 65_536,
        "max_headers": 256,
        "max_url_bytes": 16_384,
        "head_timeout": 10,
        "body_rate_window": 10,
        "min_body_rate": 16_384,
        "body_memory": None,
        "trusted_proxies": (),
        "max_pipelined_requests": 16,
        "head_memory": 16_777_216,
        "body_memory_timeout": 30,
        "stream_buffer": 65_536,
        "stream_memory": 67_108_864,
        "write_timeout": 60,
        "key_check_concurrency": 1,
        "key_check_queue": 200,
        "key_check_timeout": 30,
        "key_check_pause": 10,
        "connect_timeout": 10,
        "silence_timeout": 300,
        "turn_timeout": 1260,
        "first_event_grace": 2,
        "heartbeat_interval": 15,
        "heartbeat": "chunk",
        "shutdown_grace": 20,
        "https_proxy": None,
        "http_proxy": None,
        "no_proxy": (),
        "proxy_fetches": False,
        "extra_ca_certs": None,
        "input_variable": None,
        "output_variable": None,
        "config_file": None,
        "default_app": None,
        "conversations": "auto",
        "human_input": "auto",
        "human_input_other": "ask",
        "tools": "auto",
        "tools_max_repairs": 1,
        "tools_reminder": 8,
        "tools_template": TOOLS_TEMPLATE,
        "ignored_files": "reject",
        "file_ttl": 604_800,
        "link_ttl": 604_800,
        "max_artifact_bytes": 134_217_728,
        "artifact_storage_bytes": 10_737_418_240,
        "transcript_template": (
            "The conversation so far, oldest message first:\n\n{history}\n\nThe new message to answer:\n\n{question}"
        ),
        "end_user_id": "derived",
        "task_calls": "app",
        "task_model": None,
        "audio_app": None,
        "audio_voices": {},
        "apps": {},
        "image_model": "stability-ai/sdxl",
        "replicate_api_token": None,
        "replicate_api_url": "https://api.replicate.com/v1",
        "replicate_output_hosts": (),
        "unsupported_parameters": "reject",
        "allow_unsafe_images": True,
        "enhance_prompt_app": None,
        "image_upscaler": None,
        "image_timeout": 300,
        "image_concurrency": 4,
        "max_picture_bytes": 33_554_432,
        "image_storage_dir": "~/.local/share/openai-dify-proxy/pictures",
        "store_prompts": False,
        "public_url": None,
        "picture_retention": None,
        "picture_store": None,
        "picture_links": "local",
        "ipfs_upload_url": None,
        "ipfs_upload_auth": None,
        "ipfs_upload_field": "file",
        "ipfs_upload_form": {},
        "ipfs_gateway_url": None,
        "ipfs_timeout": 60,
        "state_url": SecretStr("sqlite:///~/.local/share/openai-dify-proxy/state.db"),
        "dify_max_concurrent": "auto",
        "max_queued_turns": 100,
        "queue_timeout": 50,
        "state_max_entries": 200_000,
        "state_max_bytes": 1_073_741_824,
        "conversation_ttl": 2_592_000,
        "image_models": {},
        "warnings": (),
    }


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("HOST", "::1", "host", "::1"),
        ("PORT", "9000", "port", 9000),
        ("PORT", "0", "port", 0),
        ("WORKERS", " 4 ", "workers", 4),
        ("DIFY_API_URL", "http://dify.test", "dify_api_url", "http://dify.test/v1"),
        ("DIFY_API_URL", "http://dify.test/", "dify_api_url", "http://dify.test/v1"),
        ("DIFY_API_URL", "https://dify.test/v1", "dify_api_url", "https://dify.test/v1"),
        ("DIFY_API_URL", "HTTPS://dify.test:5001/v1//", "dify_api_url", "https://dify.test:5001/v1"),
        ("DIFY_API_URL", "http://[::1]:5001/dify", "dify_api_url", "http://[::1]:5001/dify/v1"),
        ("ALLOW_ANONYMOUS", "yes", "allow_anonymous", True),
        ("PASSTHROUGH_KEYS", "off", "passthrough_keys", False),
        ("CORS_ORIGINS", "https://a.test/, app://obsidian.md", "cors_origins", ("https://a.test", "app://obsidian.md")),
        ("CORS_ORIGINS", "*", "cors_origins", ("*",)),
        ("LOG_LEVEL", "WARN", "log_level", "warning"),
        ("LOG_FORMAT", "JSON", "log_format", "json"),
        ("MAX_BODY_BYTES", "1000", "max_body_bytes", 1000),
        ("MAX_BODY_BYTES", "512 KB", "max_body_bytes", 524_288),
        ("MAX_BODY_BYTES", "1.5MiB", "max_body_bytes", 1_572_864),
        ("CONNECT_TIMEOUT", "2.5", "connect_timeout", 2.5),
        ("SILENCE_TIMEOUT", "5m", "silence_timeout", 300),
        ("TURN_TIMEOUT", "1h", "turn_timeout", 3600),
        ("FIRST_EVENT_GRACE", "500ms", "first_event_grace", 0.5),
        ("FIRST_EVENT_GRACE", "0", "first_event_grace", 0),
        ("HEARTBEAT_INTERVAL", "20s", "heartbeat_interval", 20),
        ("HEARTBEAT", "Comment", "heartbeat", "comment"),
        ("SHUTDOWN_GRACE", "0", "shutdown_grace", 0),
        ("INPUT_VARIABLE", "question", "input_variable", "question"),
        ("IMAGE_MODEL", "black-forest-labs/flux-schnell", "image_model", "black-forest-labs/flux-schnell"),
        ("REPLICATE_API_URL", "https://replicate.test", "replicate_api_url", "https://replicate.test/v1"),
        ("REPLICATE_API_URL", "http://127.0.0.1:9/v1/", "replicate_api_url", "http://127.0.0.1:9/v1"),
        ("REPLICATE_API_URL", "https://relay.test/replicate", "replicate_api_url", "https://relay.test/replicate"),
        (
            "REPLICATE_OUTPUT_HOSTS",
            "CDN.test, http://127.0.0.1:9000",
            "replicate_output_hosts",
            ("cdn.test", "http://127.0.0.1:9000"),
        ),
        ("REPLICATE_OUTPUT_HOSTS", "[::1]:80", "replicate_output_hosts", ("[::1]:80",)),
        ("UNSUPPORTED_PARAMETERS", "Warn", "unsupported_parameters", "warn"),
        ("ALLOW_UNSAFE_IMAGES", "no", "allow_unsafe_images", False),
        ("IMAGE_TIMEOUT", "10m", "image_timeout", 600),
        ("MAX_PICTURE_BYTES", "8MB", "max_picture_bytes", 8_388_608),
        ("IMAGE_STORAGE_DIR", "/srv/pictures", "image_storage_dir", "/srv/pictures"),
        ("XDG_DATA_HOME", "/data", "image_storage_dir", "/data/openai-dify-proxy/pictures"),
        ("PUBLIC_URL", "https://ai.example.com/images/", "public_url", "https://ai.example.com/images"),
        ("PICTURE_RETENTION", "30d", "picture_retention", 2_592_000),
        ("PICTURE_LINKS", "local", "picture_links", "local"),
        ("IPFS_UPLOAD_URL", "http://127.0.0.1:5001", "ipfs_upload_url", "http://127.0.0.1:5001/api/v0/add"),
        ("IPFS_UPLOAD_URL", "http://127.0.0.1:5001/", "ipfs_upload_url", "http://127.0.0.1:5001/api/v0/add"),
        (
            "IPFS_UPLOAD_URL",
            "https://node.test/add?pin=true",
            "ipfs_upload_url",
            "https://node.test/add?pin=true",
        ),
        (
            "IPFS_UPLOAD_FORM",
            "network=public, cid_version=1",
            "ipfs_upload_form",
            {"network": "public", "cid_version": "1"},
        ),
        ("IPFS_GATEWAY_URL", "https://{cid}.ipfs.test/", "ipfs_gateway_url", "https://{cid}.ipfs.test/"),
        ("IPFS_TIMEOUT", "90s", "ipfs_timeout", 90),
        # names that other proxies have
        ("SERVER_HOST", "::1", "host", "::1"),
        ("SERVER_PORT", "5000", "port", 5000),
        ("DIFY_API_BASE", "http://dify.test/v1", "dify_api_url", "http://dify.test/v1"),
        ("DIFY_BASE_URL", "http://dify.test", "dify_api_url", "http://dify.test/v1"),
        ("DIFY_API_ENDPOINT", "http://dify.test/v1/", "dify_api_url", "http://dify.test/v1"),
        ("Dify__ApiBase", "http://dify.test/v1", "dify_api_url", "http://dify.test/v1"),
        ("CORS_ORIGIN", "*", "cors_origins", ("*",)),
        ("DIFY_TIMEOUT", "60", "silence_timeout", 60),
        ("HTTP_TIMEOUT", "60", "silence_timeout", 60),
        ("TIMEOUT", "60", "silence_timeout", 60),
        # empty means not set
        ("PORT", "", "port", 8223),
        ("DIFY_API_URL", " ", "dify_api_url", None),
    ],
)
def test_a_variable_is_understood(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(load({variable: text}), field) == value


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("PORT", "http", "PORT in the environment must be an integer from 0 to 65535, not 'http'"),
        ("PORT", "70000", "PORT in the environment must be an integer from 0 to 65535, not '70000'"),
        ("SERVER_PORT", "x", "SERVER_PORT in the environment must be an integer from 0 to 65535, not 'x'"),
        ("WORKERS", "0", "WORKERS in the environment must be an integer of at least 1, not '0'"),
        ("ALLOW_ANONYMOUS", "ture", "ALLOW_ANONYMOUS in the environment must be true or false, not 'ture'"),
        ("HEARTBEAT", "ping", "HEARTBEAT in the environment must be 'chunk', 'comment' or 'off', not 'ping'"),
        (
            "TURN_TIMEOUT",
            "soon",
            (
                "TURN_TIMEOUT in the environment must be a number of seconds, or a duration such as "
                '"500ms", "20s" or "5m", not \'soon\''
            ),
        ),
        ("TURN_TIMEOUT", "0", "TURN_TIMEOUT in the environment must be greater than 0, not '0'"),
        (
            "MAX_BODY_BYTES",
            "-1",
            (
                'MAX_BODY_BYTES in the environment must be a number of bytes, or a size such as "512KB" or "64MB",'
                " not '-1'"
            ),
        ),
        (
            "DIFY_API_URL",
            "dify.test:80",
            (
                "DIFY_API_URL in the environment must be the http:// or https:// address of a Dify, such as "
                "\"https://api.dify.ai/v1\", not 'dify.test:80'. Did you mean http://dify.test:80?"
            ),
        ),
        (
            "DIFY_API_URL",
            "127.0.0.1:18230/v1",
            (
                "DIFY_API_URL in the environment must be the http:// or https:// address of a Dify, such as "
                "\"https://api.dify.ai/v1\", not '127.0.0.1:18230/v1'. Did you mean http://127.0.0.1:18230/v1?"
            ),
        ),
        (
            "DIFY_API_URL",
            "http://dify.test:port/v1",
            (
                "DIFY_API_URL in the environment must be the http:// or https:// address of a Dify, such as "
                '"https://api.dify.ai/v1"'
            ),
        ),
        (
            "DIFY_API_URL",
            "http://me:hush@dify.test/v1",
            (
                "DIFY_API_URL in the environment must not contain a user name or password: "
                "only the API key is sent to Dify"
            ),
        ),
        (
            "DIFY_API_URL",
            "http://dify.test/v1?a=1",
            "DIFY_API_URL in the environment must not contain a query or fragment (? or #)",
        ),
        (
            "CORS_ORIGINS",
            "a.test",
            'CORS_ORIGINS in the environment must be "*" or origins such as "https://chat.example.com", not \'a.test\'',
        ),
        (
            "API_KEYS",
            "fine,,not fine",
            (
                "One of API_KEYS in the environment is not a key: it contains spaces or characters that no key has. "
                "Is it a placeholder?"
            ),
        ),
    ],
)
def test_a_bad_value_is_named_with_its_place(variable: str, text: str, complaint: str) -> None:
    assert problems({variable: text}) == [complaint]


def test_flags_go_before_the_environment_before_dotenv_before_toml(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=3\nWORKERS=3\nLOG_LEVEL=error\n")
    config = tmp_path / "proxy.toml"
    config.write_text('port = 4\nworkers = 4\nlog_level = "debug"\nhost = "::1"\n')
    settings = load_settings(
        env={"PORT": "2", "WORKERS": "2"}, dotenv=dotenv, config=config, overrides={"port": 1, "workers": None}
    )
    assert (settings.port, settings.workers, settings.log_level, settings.host) == (1, 2, "error", "::1")


def test_an_empty_variable_does_not_hide_the_one_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=3\n")
    assert load_settings(env={"PORT": ""}, dotenv=tmp_path / ".env").port == 3


def test_the_own_name_goes_before_an_alias_wherever_either_stands(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DIFY_API_URL=http://own.test\n")
    env = {"DIFY_BASE_URL": "http://alias.test"}
    assert load_settings(env=env, dotenv=tmp_path / ".env").dify_api_url == "http://own.test/v1"


def test_an_alias_goes_before_the_toml_file(toml: Path) -> None:
    toml.write_text("port = 4\n")
    assert load({"SERVER_PORT": "5"}, toml=toml).port == 5


def test_config_file_is_named_by_a_variable_and_the_flag_goes_before_it(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.toml").write_text(f"port = {number}\n")
    env = {"CONFIG_FILE": str(tmp_path / "1.toml")}
    assert load(env).port == 1
    assert load(env, toml=tmp_path / "2.toml").port == 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"port = ", "is not TOML: Invalid value (at end of document)"),
        (b"\xff\xfe", "cannot be read: it is not UTF-8 text"),
    ],
)
def test_a_toml_file_that_cannot_be_read(toml: Path, content: bytes | None, complaint: str) -> None:
    if content is not None:
        toml.write_bytes(content)
    assert problems(toml=toml) == [f"The settings file {toml} {complaint}"]


def test_a_dotenv_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfPORT=3\r\nDIFY_API_KEY=\r\n")
    assert load_settings(env={}, dotenv=tmp_path / ".env").port == 3


def test_a_dotenv_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read: it is not UTF-8 text"):
        load_settings(env={}, dotenv=tmp_path / ".env")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('DIFY_API_KEY="app-1\n', 1),
        ("PORT=1\n\nDIFY_API_KEY='app-1\nHOST=::1\n", 3),
        ("# a note\n\n\n=1\n", 4),
        ("PORT=1\n\n  export DIFY_API_KEY = 'app-1' app-2\n", 3),
    ],
)
def test_a_malformed_line_of_dotenv_is_an_error_that_does_not_repeat_it(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(env={**URL, "WORKERS": "x"}, dotenv=path)
    assert caught.value.problems == [
        f"Line {line} of {path} cannot be read: write NAME=value, and close each quotation mark",
        "WORKERS in the environment must be an integer of at least 1, not 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "env"),
    [
        (f'DIFY_API_URL="http://dify.test\nDIFY_API_KEY={KEY}\n', {}),
        (f'DIFY_API_URL="http://dify.test\nDIFY_API_KEY="{KEY}\n', {}),
        (f'DIFY_API_KEY={KEY}\nAPI_KEYS="a\n', {**URL, "HOST": "0.0.0.0"}),
        ('SUPPORT_KEY="app-1\n', URL),
        *((f'{name}="x\n', URL) for name in (*VARIABLES, *(name for names in ALIASES.values() for name in names))),
    ],
)
def test_a_malformed_line_of_dotenv_causes_no_error_about_its_variable(
    tmp_path: Path, toml: Path, text: str, env: dict[str, str]
) -> None:
    (tmp_path / ".env").write_text(text)
    toml.write_text('[apps.support]\napi_key_env = "SUPPORT_KEY"\n' if "SUPPORT_KEY" in text else "")
    with pytest.raises(SettingsError) as caught:
        load_settings(env=env, dotenv=tmp_path / ".env", config=toml)
    (problem,) = caught.value.problems
    assert re.match(r"Line [12] of .* cannot be read: ", problem)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HOST=a\nDEFAULT=${HOST}.test\n", "a.test"),
        ("DEFAULT='${OUTSIDE}'\n", "outside"),
        ("OUTSIDE=inside\nDEFAULT=${OUTSIDE}\n", "inside"),
        ("DEFAULT=${NOWHERE:-otherwise}\n", "otherwise"),
        ("DEFAULT=x${NOWHERE}\n", "x"),
        ("DEFAULT=$OUTSIDE\n", "$OUTSIDE"),
        ("export DEFAULT = a#b # note\n", "a#b"),
        ('DEFAULT="two\nlines"\n', "two\nlines"),
        ('DEFAULT="two\\nlines"\n', "two\nlines"),
        ("DEFAULT='one\\nline'\n", "one\\nline"),
        ("DEFAULT=1\nDEFAULT=2\ndefault=3\nPORT\n", "2"),
    ],
)
def test_dotenv_is_read_as_python_dotenv_reads_it(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / ".env"
    path.write_text(text.replace("DEFAULT", "IPFS_UPLOAD_FIELD"))
    settings = load_settings(env={"OUTSIDE": "outside"}, dotenv=path)
    assert settings.ipfs_upload_field == expected


def test_dotenv_names_that_are_nearly_ours_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "DIFY_API_ULR=http://dify.test\nAPI_KEY=x\nDATABASE_URL=y\nREPLICATE_API_KEY=z\nOPENAI_API_KEY=w\nport=1\n"
        "PROT=80\nDB_PORT=1\nREDIS_HOST=x\nSECRET_KEY=x\n"
    )
    place = f"in {tmp_path / '.env'}"
    assert load_settings(env={"API_KEYZ": "x"}, dotenv=tmp_path / ".env").warnings == (
        f"DIFY_API_ULR {place} is not a setting: did you mean DIFY_API_URL?",
        f"API_KEY {place} is not a setting: did you mean API_KEYS?",
        f"port {place} is not a setting: did you mean PORT?",
        f"PROT {place} is not a setting: did you mean PORT?",
    )


def test_a_dotenv_name_that_an_app_takes_its_key_from_is_not_warned_of(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DIFY_API_KEY_2={KEY}\n")
    (tmp_path / "proxy.toml").write_text('[apps.two]\napi_key_env = "DIFY_API_KEY_2"\napi_url = "http://dify.test"\n')
    settings = load_settings(env={}, dotenv=tmp_path / ".env", config=tmp_path / "proxy.toml")
    assert settings.warnings == ()
    assert settings.apps["two"].api_key.get_secret_value() == KEY


@pytest.mark.parametrize("key", ["dataset-1", "Bearer sk-1", "sk-1,app-2,sk-3"])
def test_a_key_of_another_kind_is_warned_of_without_showing_it(key: str) -> None:
    place = "DIFY_API_KEYS in the environment"
    warning = f'{place} does not begin with "app-". Copy the key from the app\'s page “API Access” in Dify'
    assert load({**URL, "DIFY_API_KEYS": key}).warnings == (warning,)
    assert load({**URL, "DIFY_API_KEYS": f"Bearer {KEY}"}).warnings == ()


# --- apps ------------------------------------------------------------------------------------------------------


def test_every_setting_of_an_app(toml: Path) -> None:
    toml.write_text(
        """
        default_app = "support"
        [apps.support]
        aliases = ["gpt-4o*"]
        api_key = "app-1"
        api_url = "https://other.test"
        mode = "Chatflow"
        input_variable = "question"
        output_variable = "answer"
        system_prompt = "input:rules"
        progress = "reasoning"
        conversations = "Transcript"
        tools = "Reject"
        human_input = "Tool"
        inputs = { language = "en", depth = 2, tags = ["a"], deep = { b = true } }
        [apps."team/sales"]
        api_key_env = "SALES_KEY"
        """
    )
    settings = load({**URL, "SALES_KEY": "app-2"}, toml=toml)
    assert settings.default_app == "support"
    support, sales = settings.apps["support"], settings.apps["team/sales"]
    assert support.api_key.get_secret_value() == "app-1"
    assert asdict(support) == {
        "api_key": SecretStr("app-1"),
        "name": "support",
        "api_key_env": None,
        "api_url": "https://other.test/v1",
        "aliases": ("gpt-4o*",),
        "mode": "advanced-chat",
        "input_variable": "question",
        "output_variable": "answer",
        "system_prompt": "input:rules",
        "progress": "reasoning",
        "conversations": "transcript",
        "tools": "reject",
        "human_input": "tool",
        "inputs": {"language": "en", "depth": 2, "tags": ["a"], "deep": {"b": True}},
    }
    assert (sales.name, sales.api_url, sales.mode) == ("team/sales", "http://dify.test/v1", None)
    assert (sales.api_key_env, sales.api_key.get_secret_value()) == ("SALES_KEY", "app-2")


def test_a_single_key_is_the_default_app_and_takes_the_variables_for_it() -> None:
    env = {**URL, "DIFY_API_KEY": KEY, "INPUT_VARIABLE": "q", "OUTPUT_VARIABLE": "a", "BOT_TYPE": "Workflow"}
    settings = load(env)
    assert settings.default_app == "dify"
    assert list(settings.apps) == ["dify"]
    app = settings.apps["dify"]
    assert (app.name, app.api_url, app.mode) == ("dify", "http://dify.test/v1", "workflow")
    assert (app.input_variable, app.output_variable) == ("q", "a")
    assert app.api_key.get_secret_value() == KEY


def test_bot_type_chat_stands_for_three_modes_so_dify_is_asked() -> None:
    assert load({**URL, "DIFY_API_KEY": KEY, "BOT_TYPE": "Chat"}).apps["dify"].mode is None


def test_several_keys_are_several_apps_and_the_first_is_the_default() -> None:
    settings = load({**URL, "DIFY_API_KEYS": "app-1, app-2,"})
    assert {name: app.api_key.get_secret_value() for name, app in settings.apps.items()} == {
        "dify": "app-1",
        "dify-2": "app-2",
    }
    assert settings.default_app == "dify"


@pytest.mark.parametrize("text", ["Bearer app-1", "  bearer  app-1 ", "app-1"])
def test_a_key_from_a_header_loses_its_scheme(text: str, toml: Path) -> None:
    toml.write_text('[apps.support]\napi_key = "app-1"\n')
    settings = load({**URL, "DIFY_API_KEY": text, "API_KEYS": f"{text},two"}, toml=toml)
    assert settings.dify_api_key == SecretStr("app-1")
    assert settings.api_keys == (SecretStr("app-1"), SecretStr("two"))
    assert (list(settings.apps), settings.default_app) == (["support"], "support")


def test_a_toml_file_cannot_name_another(toml: Path) -> None:
    toml.write_text('config_file = "other.toml"\n')
    assert problems(toml=toml) == [f"config_file in {toml} is not a setting"]


def test_the_settings_name_their_file(toml: Path) -> None:
    toml.write_text("")
    assert load(toml=toml).config_file == str(toml)
    assert load({"CONFIG_FILE": str(toml)}).config_file == str(toml)


@pytest.mark.parametrize("variable", ["5", '""', '" "'])
def test_the_name_of_a_variable_is_text(toml: Path, variable: str) -> None:
    toml.write_text(f'[apps.a]\napi_key_env = {variable}\napi_url = "http://dify.test"\n')
    (problem,) = problems(toml=toml)
    assert problem.startswith(f"api_key_env of [apps.a] in {toml} must ")


def test_a_list_of_no_keys_is_no_app() -> None:
    settings = load({**URL, "DIFY_API_KEYS": " , "})
    assert (settings.apps, settings.dify_api_key, settings.default_app) == ({}, None, None)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DIFY_MODEL_MAP", "support:app-1, team:sales : app-2"),
        ("MODEL_CONFIG", '{"support":"app-1","team:sales":"app-2"}'),
    ],
)
def test_maps_of_other_proxies(variable: str, text: str) -> None:
    settings = load({**URL, variable: text})
    assert {name: app.api_key.get_secret_value() for name, app in settings.apps.items()} == {
        "support": "app-1",
        "team:sales": "app-2",
    }
    assert settings.default_app is None


def test_a_key_beside_apps_serves_what_no_app_is_named(toml: Path) -> None:
    toml.write_text('[apps.support]\napi_key = "app-1"\n')
    settings = load({**URL, "DIFY_API_KEY": KEY}, toml=toml)
    assert (list(settings.apps), settings.default_app) == (["support", "dify"], "dify")


def test_a_key_that_an_app_has_makes_that_app_the_default(toml: Path) -> None:
    toml.write_text('[apps.support]\napi_key_env = "DIFY_API_KEY"\n')
    settings = load({**URL, "DIFY_API_KEY": KEY}, toml=toml)
    assert (list(settings.apps), settings.default_app) == (["support"], "support")


def test_default_app_goes_before_the_app_of_the_single_key(toml: Path) -> None:
    toml.write_text('default_app = "support"\n[apps.support]\napi_key = "app-1"\n')
    assert load({**URL, "DIFY_API_KEY": KEY}, toml=toml).default_app == "support"


APP = 'api_key = "app-1"\napi_url = "http://dify.test"\n'


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("prot = 1\n", ["prot in {file} is not a setting: did you mean port?"]),
        ("server_port = 1\n", ["server_port in {file} is not a setting: did you mean port?"]),
        ("zzz = 1\n", ["zzz in {file} is not a setting"]),
        ("warnings = []\n", ["warnings in {file} is not a setting"]),
        ("mode = 1\n", ["mode in {file} is not a setting: it belongs under [apps.<name>]"]),
        ("apps = 1\n", ["apps in {file} must be tables: write [apps.<name>], and the app's settings below"]),
        ('apps.a = "app-1"\n', ["apps in {file} must be tables: write [apps.<name>], and the app's settings below"]),
        (
            f"[apps.a]\n{APP}alias = []\n",
            ["alias of [apps.a] in {file} is not a setting of an app: did you mean aliases?"],
        ),
        (
            f'default_app = "gpt-4.1"\n[apps.gpt-4.1]\n{APP}[apps.gpt-4]\n{APP}mod = 1\n',
            [
                '[apps.gpt-4.1] in {file} is not valid. A name with a dot needs quotation marks: [apps."gpt-4.1"]',
                "mod of [apps.gpt-4] in {file} is not a setting of an app: did you mean mode?",
            ],
        ),
        (f'[apps.""]\n{APP}', ["The name of [apps.] in {file} must not be empty"]),
        (f"[apps.a]\n{APP}aliases = 1\n", ["aliases of [apps.a] in {file} must be a list, not 1"]),
        ("turn_timeout = inf\n", ["turn_timeout in {file} must be a finite number of seconds, not inf"]),
        (f"[apps.a]\n{APP}inputs = 1\n", ["inputs of [apps.a] in {file} must be a table, not 1"]),
        (
            f"[apps.a]\n{APP}inputs = {{ since = 2024-05-01, x = [nan], y = 1 }}\n",
            [
                (
                    "inputs of [apps.a] in {file} contains values that JSON cannot represent (since, x): "
                    "write dates and times as text"
                )
            ],
        ),
        (
            f'[apps.a]\n{APP}system_prompt = "input:"\n',
            ["system_prompt of [apps.a] in {file} must be auto, query, drop or input:<variable>, not 'input:'"],
        ),
        (
            f'[apps.a]\n{APP}progress = "on"\n',
            ["progress of [apps.a] in {file} must be 'off' or 'reasoning', not 'on'"],
        ),
        (f'[apps.a]\n{APP}api_key_env = "A"\n', ["[apps.a] in {file} has both api_key and api_key_env: remove one"]),
        (
            '[apps.a]\napi_key_env = "A_KEY"\napi_url = "http://dify.test"\n',
            ["api_key_env of [apps.a] in {file} names A_KEY, which is set neither in the environment nor in .env"],
        ),
        (
            f'[apps.a]\napi_key_env = "{KEY}"\napi_url = "http://dify.test"\n',
            [
                "api_key_env of [apps.a] in {file} must be the name of a variable. To set the key itself, use api_key",
            ],
        ),
        (
            "[apps.a]\n",
            [
                (
                    "[apps.a] in {file} has neither api_key nor api_key_env. The key is on the app's page "
                    "“API Access” in Dify"
                ),
                "[apps.a] in {file} needs a Dify: set DIFY_API_URL (https://api.dify.ai/v1 for Dify Cloud)",
            ],
        ),
        (
            f'default_app = "aa"\n[apps.a]\n{APP}',
            ["default_app in {file} is not the name of a configured app: did you mean a?"],
        ),
        (
            f'default_app = "z"\n[apps.support]\n{APP}[apps.sales]\n{APP}',
            ["default_app in {file} is not the name of a configured app. Configured: support, sales"],
        ),
        ('default_app = "z"\n', ["default_app in {file} is not the name of a configured app. Configured: none"]),
        (
            f'[apps.a]\n{APP}aliases = ["gpt-*", "gpt-4"]\n[apps.b]\n{APP}aliases = ["gpt-*", "gpt-4?"]\n',
            ['[apps.b] in {file} and [apps.a] both have the alias "gpt-*": remove one'],
        ),
        (
            f'[apps.a]\n{APP}aliases = ["b", "a"]\n[apps.b]\n{APP}',
            ['[apps.a] in {file} has the alias "b", which is the name of another app: remove it'],
        ),
    ],
)
def test_errors_in_a_toml_file(toml: Path, text: str, complaints: list[str]) -> None:
    toml.write_text(text)
    assert problems(toml=toml) == [complaint.format(file=toml) for complaint in complaints]


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        (
            {"DIFY_API_KEY": KEY},
            ("DIFY_API_KEY in the environment needs a Dify: set DIFY_API_URL (https://api.dify.ai/v1 for Dify Cloud)"),
        ),
        (
            {**URL, "DIFY_MODEL_MAP": "app-1"},
            'DIFY_MODEL_MAP in the environment must be pairs of a name and a key: "support:app-…,sales:app-…"',
        ),
        (
            {**URL, "MODEL_CONFIG": "[]"},
            'MODEL_CONFIG in the environment must be a JSON object of names and keys: {"support": "app-…"}',
        ),
        (
            {**URL, "MODEL_CONFIG": "a:app-1"},
            'MODEL_CONFIG in the environment must be a JSON object of names and keys: {"support": "app-…"}',
        ),
        ({**URL, "MODEL_CONFIG": '{"a": 1}'}, "MODEL_CONFIG in the environment must be text"),
        (
            {**URL, "DIFY_API_KEY": "app-…"},
            (
                "DIFY_API_KEY in the environment is not a key: it contains spaces or characters that no key has. "
                "Is it a placeholder?"
            ),
        ),
        (
            {**URL, "DIFY_API_KEY": KEY, "BOT_TYPE": "Robot"},
            (
                "BOT_TYPE in the environment must be 'chat', 'agent-chat', 'advanced-chat', 'completion', "
                "'workflow' or 'agent', not 'robot'"
            ),
        ),
        (
            {**URL, "DIFY_API_KEY": KEY, "DIFY_MODEL_MAP": "dify:app-1"},
            ("DIFY_MODEL_MAP in the environment has the name of the app of DIFY_API_KEY in the environment: rename it"),
        ),
    ],
)
def test_errors_in_variables_for_apps(env: Mapping[str, str], complaint: str) -> None:
    assert problems(env) == [complaint]


def test_all_problems_are_reported_at_once(toml: Path) -> None:
    toml.write_text(
        'colour = 1\ndefault_app = "none"\n[apps.a]\nmode = "talk"\napi_key_env = "NO_SUCH"\naliases = ["x"]\n'
        '[apps.b]\naliases = ["x"]\n'
    )
    found = problems(
        {"PORT": "x", "LOG_LEVEL": "loud", "DIFY_API_URL": "ftp://dify.test", "HOST": "0.0.0.0"}, toml=toml
    )
    beginnings = [
        f"colour in {toml} ",
        f"api_key_env of [apps.a] in {toml} names NO_SUCH",
        "DIFY_API_URL in the environment ",
        "PORT in the environment ",
        "LOG_LEVEL in the environment ",
        f"mode of [apps.a] in {toml} ",
        f"[apps.b] in {toml} has neither api_key nor api_key_env",
        f"default_app in {toml} ",
        f'[apps.b] in {toml} and [apps.a] both have the alias "x"',
    ]
    assert [problem[: len(beginning)] for problem, beginning in zip(found, beginnings, strict=True)] == beginnings


# --- safe by default -------------------------------------------------------------------------------------------

EVERYWHERE = {**URL, "HOST": "0.0.0.0"}


@pytest.mark.parametrize(
    "env",
    [
        EVERYWHERE,
        {**URL, "DIFY_API_KEY": KEY},
        {**URL, "DIFY_API_KEY": KEY, "HOST": "localhost"},
        {**EVERYWHERE, "DIFY_API_KEY": KEY, "API_KEYS": "secret"},
        {**EVERYWHERE, "DIFY_API_KEY": KEY, "VALID_API_KEYS": "secret"},
        {**EVERYWHERE, "DIFY_API_KEY": KEY, "PROXY_API_KEY": "secret"},
        {**EVERYWHERE, "DIFY_API_KEY": KEY, "ALLOW_ANONYMOUS": "true"},
    ],
)
def test_it_starts(env: Mapping[str, str]) -> None:
    assert load(env).unprotected is None


@pytest.mark.parametrize(
    "env",
    [
        {**EVERYWHERE, "DIFY_API_KEY": KEY},
        {**EVERYWHERE, "DIFY_API_KEYS": KEY},
        {**EVERYWHERE, "DIFY_MODEL_MAP": f"support:{KEY}"},
        {**EVERYWHERE, "DIFY_API_KEY": KEY, "API_KEYS": " , "},
        {**EVERYWHERE, "DIFY_API_KEY": KEY, "ALLOW_ANONYMOUS": "false"},
        {**EVERYWHERE, "HOST": "proxy.test", "DIFY_API_KEY": KEY},
    ],
)
def test_it_refuses_to_give_strangers_the_keys_and_says_the_four_ways_out(env: Mapping[str, str]) -> None:
    """Only the server knows whether there are client keys in the state, so this is no problem of the settings alone."""
    problem = load(env).unprotected
    assert problem is not None
    ways_out = ("openai-dify-proxy keys create NAME --admin", "API_KEYS", "HOST=127.0.0.1", "ALLOW_ANONYMOUS=true")
    assert all(way_out in problem for way_out in ways_out)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_api_keys_are_a_list_without_blanks() -> None:
    assert [key.get_secret_value() for key in load({"API_KEYS": "a, ,b,"}).api_keys] == ["a", "b"]


def test_secrets_are_not_in_any_text_of_the_settings(toml: Path) -> None:
    toml.write_text(f'[apps.a]\napi_key = "{KEY}"\n')
    settings = load({**URL, "DIFY_API_KEY": KEY + "x", "API_KEYS": "client-secret"}, toml=toml)
    for text in (repr(settings), str(settings), f"{settings.api_keys}"):
        assert KEY not in text
        assert "client-secret" not in text


@pytest.mark.parametrize("secret", [KEY, "app-short", "sk-short", "client-secret-of-25-letters"])
def test_a_secret_under_a_wrong_name_is_not_repeated(secret: str, toml: Path) -> None:
    toml.write_text(f'[apps.a]\napi_key = 5\nmode = "{secret}"\nprogress = "{secret}"\ninputs = "{secret}"\n')
    wrong = ("PORT", "DIFY_API_URL", "TURN_TIMEOUT", "LOG_LEVEL", "ALLOW_ANONYMOUS", "CORS_ORIGINS", "MODEL_CONFIG")
    text = "\n".join(problems(dict.fromkeys(wrong, secret) | {"DIFY_MODEL_MAP": secret}, toml=toml))
    assert all(name in text for name in (*wrong, "DIFY_MODEL_MAP"))
    assert secret not in text


def test_settings_made_directly_read_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    assert Settings().port == 8223
    assert Settings(port=2).port == 2


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_workers_get_the_very_settings(toml: Path) -> None:
    toml.write_text(f'[apps.a]\n{APP}inputs = {{ n = 1, s = "字" }}\naliases = ["x*"]\n')
    settings = load({**URL, "DIFY_API_KEY": KEY, "API_KEYS": "one,two", "SILENCE_TIMEOUT": "1ms"}, toml=toml)
    assert decode_settings(encode_settings(settings)) == settings


# --- tools -----------------------------------------------------------------------------------------------------


def test_tools_are_a_setting_or_a_table(toml: Path) -> None:
    toml.write_text('tools = "ignore"\ntools_reminder = 3\n')
    settings = load(URL, toml=toml)
    assert (settings.tools, settings.tools_reminder) == ("ignore", 3)
    toml.write_text(
        '[tools]\nmode = "Emulate"\nmax_repairs = 0\nreminder = 5\ntemplate = "{tools}\\\\n{format} {demand}"\n'
    )
    settings = load(URL, toml=toml)
    assert (settings.tools, settings.tools_max_repairs, settings.tools_reminder) == ("emulate", 0, 5)
    assert settings.tools_template == "{tools}\n{format} {demand}"


def test_table_of_tools_rejects_other_keys(toml: Path) -> None:
    toml.write_text("[tools]\nrepairs = 1\n")
    assert problems(URL, toml=toml) == [f"repairs of [tools] in {toml} is not a setting: did you mean max_repairs?"]


def test_template_of_tools_needs_its_placeholders() -> None:
    (problem,) = problems({**URL, "TOOLS_TEMPLATE": "{tools} {demand}"})
    assert "TOOLS_TEMPLATE in the environment" in problem
    assert "{format}" in problem
