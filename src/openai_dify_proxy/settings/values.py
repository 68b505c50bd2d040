"""The types of settings.

Each is an annotated type whose validator accepts the forms of an environment variable, a TOML file or a flag, and
whose errors continue a sentence that begins with the name of the setting: "PORT must be …".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from openai_dify_proxy.settings.extras import install_command
from openai_dify_proxy.translate.replicate.model_names import parse_model
from openai_dify_proxy.wire.dify import Mode

# The names that Dify's console and other proxies use for two of the modes.
OTHER_MODE_NAMES = {"chatflow": "advanced-chat", "agent_chat": "agent-chat"}

# Other proxies' CONVERSATION_MEMORY_MODE, CONVERSATION_MODE and memory_mode.
OTHER_CONVERSATION_RULES = {
    "1": "transcript",
    "2": "auto",
    "3": "last-message",
    "none": "transcript",
    "all_messages": "transcript",
    "last_user_message": "last-message",
}

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_SECONDS_PER = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES_PER = {
    "": 1,
    "b": 1,
    **dict.fromkeys(("k", "kb", "kib"), 1024),
    **dict.fromkeys(("m", "mb", "mib"), 1024**2),
    **dict.fromkeys(("g", "gb", "gib"), 1024**3),
}
_SYSTEM_PROMPT = re.compile(r"auto|query|drop|input:\S+")
_HOST = re.compile(r"(?:https?://)?(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.IGNORECASE)
_STORES = ("s3", "gs", "az")
_SERVERS = ("redis", "rediss", "valkey", "valkeys")
STATES = ("sqlite", *_SERVERS, *(f"{scheme}+cluster" for scheme in _SERVERS), "unix", "memory")
"""The schemes of STATE_URL. Those with an s at their end are TLS; ``unix`` is a server's socket."""


def _quantity(value: object, units: Mapping[str, float], examples: str) -> object:
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(f"must be {examples}")
    return float(match[1]) * units[match[2].lower()]


def _seconds(value: object) -> object:
    return _quantity(value, _SECONDS_PER, 'a number of seconds, or a duration such as "500ms", "20s" or "5m"')


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number of seconds")
    return value


def _bytes(value: object) -> object:
    amount = _quantity(value, _BYTES_PER, 'a number of bytes, or a size such as "512KB" or "64MB"')
    return int(amount) if isinstance(amount, float) else amount


def _comma_separated(value: object) -> object:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return parts
    return tuple(part for part in (part.strip() if isinstance(part, str) else part for part in parts) if part != "")


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _mode(value: object) -> object:
    lower = _lower(value)
    return OTHER_MODE_NAMES.get(lower, lower) if isinstance(lower, str) else lower


def _conversation_rule(value: object) -> object:
    lower = _lower(str(value)) if isinstance(value, int) else _lower(value)
    return OTHER_CONVERSATION_RULES.get(lower, lower) if isinstance(lower, str) else lower


def _personal_keys(value: object) -> object:
    """Parse comma-separated ``key=end user`` pairs; a key may hold an equals sign, an end user may not."""
    parts = _comma_separated(value)
    if not isinstance(parts, tuple):
        return parts
    pairs = [part.rpartition("=")[::2] if isinstance(part, str) else part for part in parts]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError('must be pairs of a key and an end user: "sk-one=anna,sk-two=bert"')
    return tuple(pairs)


def _template(value: object) -> object:
    """Replace \\n by a line end, which a variable cannot hold."""
    return value.replace("\\n", "\n") if isinstance(value, str) else value


def _transcript_template(template: str) -> str:
    marks = [template.count(mark) for mark in ("{history}", "{question}")]
    if marks != [1, 1] or template.index("{history}") > template.index("{question}"):
        raise ValueError("must hold {history} and after it {question}, each once")
    return template


def _log_level(value: object) -> object:
    lower = _lower(value)
    return "warning" if lower == "warn" else lower


def _header_safe(key: SecretStr) -> SecretStr:
    """Reject keys that no HTTP header can hold, such as the placeholder ``app-…`` or a pasted line end."""
    text = key.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is not a key: it holds spaces or characters that no key has (is it a placeholder?)")
    return key


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isascii() or not value.get_secret_value().isprintable():
        raise ValueError("holds characters that no HTTP header has")
    return value


def _web_address(url: str, what: str, userinfo: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        parts = urlsplit("")
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"must be the http:// or https:// address of {what}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"must not hold a user name or password: {userinfo}")
    return parts


def _base_url(parts: SplitResult) -> str:
    if parts.query or parts.fragment:
        raise ValueError("must end with its path, without ? or #")
    return f"{parts.scheme.lower()}://{parts.netloc}{parts.path.rstrip('/')}"


def _dify_url(url: str) -> str:
    """Return the base URL of Dify's Service API: no trailing slash, ``/v1`` at the end."""
    base = _base_url(
        _web_address(url, 'a Dify, such as "https://api.dify.ai/v1"', "Dify's API key is all that is sent")
    )
    return base if base.endswith("/v1") else base + "/v1"


def _replicate_url(url: str) -> str:
    """Add ``/v1`` to a bare origin; a relay of Replicate's API may have another path."""
    parts = _web_address(url, "Replicate's API", "the token is all that is sent")
    base = _base_url(parts)
    return base if parts.path.strip("/") else base + "/v1"


def _public_url(url: str) -> str:
    return _base_url(_web_address(url, "this proxy, as clients reach it", "every answer would show it"))


def _upload_url(url: str) -> str:
    """Return the URL with its query, which some services need; a bare origin gets the path of Kubo's RPC."""
    parts = _web_address(url, "an IPFS node or service", "IPFS_UPLOAD_AUTH takes the whole Authorization header")
    if parts.fragment:
        raise ValueError("must not hold a #")
    return url if parts.path.strip("/") or parts.query else f"{parts.scheme.lower()}://{parts.netloc}/api/v0/add"


def _gateway_url(url: str) -> str:
    _web_address(url.replace("{cid}", "cid"), "a gateway", "every answer would show it")
    if "{cid}" not in url:
        raise ValueError('must hold {cid}, as in "https://ipfs.io/ipfs/{cid}"')
    return url


def _store_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
    except ValueError:
        parts = urlsplit("")
    if parts.scheme.lower() not in _STORES or not parts.netloc:
        raise ValueError('must be the address of a bucket: "s3://bucket/prefix", "gs://…" or "az://…"')
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password: its options stand behind a ?")
    return url


def _state_url(url: SecretStr) -> SecretStr:
    scheme, colon, rest = url.get_secret_value().partition("://")
    scheme = scheme.lower()
    if not colon or scheme not in STATES:
        raise ValueError(f"must begin with one of {', '.join(f'{known}://' for known in STATES)}")
    if scheme == "sqlite" and (not rest.startswith("/") or rest.endswith("/")):
        raise ValueError('must be the path of a file: "sqlite:///state.db", or "sqlite:////var/lib/proxy/state.db"')
    if scheme not in {"sqlite", "memory"}:
        if not _names_a_server(url.get_secret_value()):
            raise ValueError(f'must name a server: "{scheme}://user:password@host:6379", marks in a password as %xx')
        if find_spec("redis") is None:
            raise ValueError(f"requires an extra package. Install it: {install_command('redis')}")
    return url


def _names_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return False
    return bool(parts.path if parts.scheme == "unix" else parts.hostname)


def _host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError('must be hosts or origins, such as "cdn.example.com" or "http://127.0.0.1:9000"')
    return host.lower()


def _form(value: object) -> object:
    """Parse comma-separated ``name=value`` pairs; a TOML file has a table instead."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ValueError('must be pairs of a name and a value: "network=public,cid_version=1"')
    return {name.strip(): text.strip() for name, _, text in pairs}


def _origin(origin: str) -> str:
    """Accept any scheme: desktop clients have origins such as ``app://obsidian.md``."""
    if origin != "*" and "://" not in origin:
        raise ValueError('must be "*" or origins such as "https://chat.example.com"')
    return origin.rstrip("/")


def _image_model(name: str) -> str:
    if parse_model(name) is None:
        raise ValueError("must be a model of Replicate: owner/name, owner/name:version, or deployment:owner/name")
    return name


def _system_prompt(value: str) -> str:
    if not _SYSTEM_PROMPT.fullmatch(value):
        raise ValueError("must be auto, query, drop or input:<variable>")
    return value


def _json_only(inputs: dict[str, Any]) -> dict[str, Any]:
    """Reject values of TOML that JSON, which Dify takes, does not have: dates, times, and infinite numbers."""
    unfit = [name for name, value in inputs.items() if not _is_json(value)]
    if unfit:
        raise ValueError(f"holds what JSON has no form for in {', '.join(unfit)}: write dates and times as text")
    return inputs


def _is_json(value: object) -> bool:
    match value:
        case dict():
            return all(_is_json(part) for part in value.values())
        case list():
            return all(_is_json(part) for part in value)
        case float():
            return math.isfinite(value)
        case _:
            return value is None or isinstance(value, str | int)


ConversationRule = Literal["auto", "transcript", "last-message"]

Text = Annotated[str, BeforeValidator(_stripped), Field(min_length=1)]
Key = Annotated[SecretStr, BeforeValidator(_stripped), Field(min_length=1), AfterValidator(_header_safe)]
Keys = Annotated[tuple[Key, ...], BeforeValidator(_comma_separated)]
PersonalKeys = Annotated[tuple[tuple[Key, Text], ...], BeforeValidator(_personal_keys)]
AppConversations = Annotated[ConversationRule, BeforeValidator(_conversation_rule)]
EndUserId = Annotated[Literal["derived", "plain"], BeforeValidator(_lower)]
TaskCalls = Annotated[Literal["app", "off"], BeforeValidator(_lower)]
Template = Annotated[str, BeforeValidator(_template), AfterValidator(_transcript_template)]
DifyUrl = Annotated[Text, AfterValidator(_dify_url)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_comma_separated)]
Patterns = Annotated[tuple[Text, ...], BeforeValidator(_comma_separated)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0), AfterValidator(_finite)]
SecondsOrNone = Annotated[float, BeforeValidator(_seconds), Field(ge=0), AfterValidator(_finite)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
AppMode = Annotated[Mode, BeforeValidator(_mode)]
SystemPrompt = Annotated[str, BeforeValidator(_stripped), AfterValidator(_system_prompt)]
Inputs = Annotated[dict[str, Any], AfterValidator(_json_only)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_log_level)]
LogFormat = Annotated[Literal["console", "json"], BeforeValidator(_lower)]
Heartbeat = Annotated[Literal["chunk", "comment", "off"], BeforeValidator(_lower)]
Progress = Annotated[Literal["off", "reasoning"], BeforeValidator(_lower)]
Flag = Annotated[bool, BeforeValidator(_stripped)]
Secret = Annotated[SecretStr, BeforeValidator(_stripped), Field(min_length=1), AfterValidator(_secret)]
ApiUrl = Annotated[Text, AfterValidator(_replicate_url)]
WebUrl = Annotated[Text, AfterValidator(_public_url)]
UploadUrl = Annotated[Text, AfterValidator(_upload_url)]
GatewayUrl = Annotated[Text, AfterValidator(_gateway_url)]
StateUrl = Annotated[SecretStr, BeforeValidator(_stripped), Field(min_length=1), AfterValidator(_state_url)]
StoreUrl = Annotated[SecretStr, BeforeValidator(_stripped), Field(min_length=1), AfterValidator(_store_url)]
ImageModelName = Annotated[Text, AfterValidator(_image_model)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_comma_separated)]
Form = Annotated[dict[str, str], BeforeValidator(_form)]
PictureLinks = Annotated[Literal["local", "ipfs"], BeforeValidator(_lower)]
MaskColour = Annotated[Literal["black", "white"], BeforeValidator(_lower)]
UnsupportedParameters = Annotated[Literal["reject", "warn", "drop"], BeforeValidator(_lower)]
