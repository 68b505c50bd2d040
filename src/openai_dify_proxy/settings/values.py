"""The types of settings.

Each is an annotated type whose validator accepts the forms of an environment variable, a TOML file or a flag, and
whose errors continue a sentence that begins with the name of the setting: "PORT must be …".
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, overload
from urllib.parse import SplitResult, urlsplit

from annotated_types import Ge, Gt, MinLen

from openai_dify_proxy.settings.markers import After, Before, Kind
from openai_dify_proxy.settings.secret import SecretStr
from openai_dify_proxy.settings.state_urls import check_state_url
from openai_dify_proxy.translate.replicate.model_names import parse_model
from openai_dify_proxy.translate.tool_template import check_template
from openai_dify_proxy.wire.dify import Mode

OTHER_MODE_NAMES = {"chatflow": "advanced-chat", "agent_chat": "agent-chat"}
"""Two modes as Dify's console and other proxies name them."""

OTHER_CONVERSATION_RULES = {
    "1": "transcript",
    "2": "auto",
    "3": "last-message",
    "none": "transcript",
    "all_messages": "transcript",
    "last_user_message": "last-message",
}
"""Values of other proxies' CONVERSATION_MEMORY_MODE, CONVERSATION_MODE and memory_mode."""

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_SECONDS_PER = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES_PER = {
    "": 1,
    "b": 1,
    **dict.fromkeys(("k", "kb", "kib"), 1024),
    **dict.fromkeys(("m", "mb", "mib"), 1024**2),
    **dict.fromkeys(("g", "gb", "gib"), 1024**3),
}
_BEARER = re.compile(r"\s*bearer\s+", re.IGNORECASE)
_SYSTEM_PROMPT = re.compile(r"auto|query|drop|input:\S+")
_HOST = re.compile(r"(?:https?://)?(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.IGNORECASE)
_STORES = ("s3", "gs", "az")


def _quantity(value: object, units: Mapping[str, float], examples: str) -> object:
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(f"must be {examples}")
    return float(match[1]) * units[match[2].lower()]


def duration(text: str) -> float | None:
    """Return the seconds of a duration such as ``90d``, or None for any other text, a bare number included."""
    match = _QUANTITY.fullmatch(text.strip())
    unit = "" if match is None else match[2].lower()
    return float(match[1]) * _SECONDS_PER[unit] if match is not None and unit and unit in _SECONDS_PER else None


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


MAX_CONCURRENT = 1000
"""The highest number of turns at once in one Dify. Processes that share slots look at each of them."""


def _max_concurrent(value: object) -> object:
    limit = _lower(value)
    if isinstance(limit, str) and limit.isdecimal():
        limit = int(limit)
    if limit in ("auto", "off") or (
        isinstance(limit, int) and not isinstance(limit, bool) and 1 <= limit <= MAX_CONCURRENT
    ):
        return limit
    raise ValueError(f"must be auto, off, or a whole number from 1 to {MAX_CONCURRENT}")


def _template(value: object) -> object:
    """Replace \\n by a line end, which ``.env`` and many shells cannot hold in a value."""
    return value.replace("\\n", "\n") if isinstance(value, str) else value


def _transcript_template(template: str) -> str:
    marks = [template.count(mark) for mark in ("{history}", "{question}")]
    if marks != [1, 1] or template.index("{history}") > template.index("{question}"):
        raise ValueError("must contain {history}, then {question}, each exactly once")
    return template


def _tools_template(template: str) -> str:
    check_template(template)
    return template


def _log_level(value: object) -> object:
    lower = _lower(value)
    return "warning" if lower == "warn" else lower


@overload
def strip_scheme(value: str) -> str: ...


@overload
def strip_scheme(value: object) -> object: ...


def strip_scheme(value: object) -> object:
    """Strip white space and a leading ``Bearer`` from a key that was copied from an Authorization header."""
    return _BEARER.sub("", value, count=1).strip() if isinstance(value, str) else value


def _header_safe(key: SecretStr) -> SecretStr:
    """Reject keys that do not fit into an HTTP header, such as the placeholder ``app-…`` or a pasted line end."""
    text = key.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is not a key: it contains spaces or characters that no key has. Is it a placeholder?")
    return key


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isascii() or not value.get_secret_value().isprintable():
        raise ValueError("contains characters that HTTP headers do not allow")
    return value


def _web_address(url: str, what: str, userinfo: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError if invalid
    except ValueError:
        parts = urlsplit("")
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"must be the http:// or https:// address of {what}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"must not contain a user name or password: {userinfo}")
    return parts


def _base_url(parts: SplitResult) -> str:
    if parts.query or parts.fragment:
        raise ValueError("must not contain a query or fragment (? or #)")
    return f"{parts.scheme.lower()}://{parts.netloc}{parts.path.rstrip('/')}"


def _dify_url(url: str) -> str:
    """Return the base URL of Dify's Service API: no trailing slash, ``/v1`` at the end."""
    base = _base_url(_web_address(url, 'a Dify, such as "https://api.dify.ai/v1"', "only the API key is sent to Dify"))
    return base if base.endswith("/v1") else base + "/v1"


def _replicate_url(url: str) -> str:
    """Add ``/v1`` to a bare origin; a relay of Replicate's API may have another path."""
    parts = _web_address(url, "Replicate's API", "only the token is sent")
    base = _base_url(parts)
    return base if parts.path.strip("/") else base + "/v1"


def _public_url(url: str) -> str:
    return _base_url(_web_address(url, "this proxy, as clients reach it", "answers would reveal it"))


def _upload_url(url: str) -> str:
    """Return the URL with its query, which some services need; a bare origin gets the path of Kubo's RPC."""
    parts = _web_address(url, "an IPFS node or service", "set IPFS_UPLOAD_AUTH to the full Authorization header")
    if parts.fragment:
        raise ValueError("must not contain a #")
    return url if parts.path.strip("/") or parts.query else f"{parts.scheme.lower()}://{parts.netloc}/api/v0/add"


def _gateway_url(url: str) -> str:
    _web_address(url.replace("{cid}", "cid"), "a gateway", "answers would reveal it")
    if "{cid}" not in url:
        raise ValueError('must contain {cid}, as in "https://ipfs.io/ipfs/{cid}"')
    return url


def _store_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
    except ValueError:
        parts = urlsplit("")
    if parts.scheme.lower() not in _STORES or not parts.netloc:
        raise ValueError('must be the address of a bucket: "s3://bucket/prefix", "gs://…" or "az://…"')
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password: set credentials as options after a ?")
    return url


def _proxy_url(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        valid = parts.scheme == "http" and parts.hostname and parts.path in ("", "/") and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError('must be the URL of an HTTP proxy: "http://proxy.example.com:3128"')
    return url


def _certificate_file(path: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(Path(path).expanduser())
    except ssl.SSLError as error:
        raise ValueError("must be a file of certificates in PEM format") from error
    except OSError as error:
        raise ValueError(f"must be a readable file: {error.strerror}") from error
    return path


def _host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError('must be hosts or origins, such as "cdn.example.com" or "http://127.0.0.1:9000"')
    return host.lower()


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError('must be addresses or networks, such as "10.0.0.2" or "172.16.0.0/12"') from None


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
        raise ValueError("must be a Replicate model: owner/name, owner/name:version, or deployment:owner/name")
    return name


def _system_prompt(value: str) -> str:
    if not _SYSTEM_PROMPT.fullmatch(value):
        raise ValueError("must be auto, query, drop or input:<variable>")
    return value


def _json_only(inputs: dict[str, Any]) -> dict[str, Any]:
    """Reject TOML values without a JSON form, since Dify takes JSON: dates, times, and infinite numbers."""
    unfit = [name for name, value in inputs.items() if not _is_json(value)]
    if unfit:
        raise ValueError(
            f"contains values that JSON cannot represent ({', '.join(unfit)}): write dates and times as text"
        )
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
ToolsRule = Literal["auto", "emulate", "ignore", "reject"]

Text = Annotated[str, Before(_stripped), MinLen(1), Kind("text")]
Key = Annotated[SecretStr, Before(strip_scheme), MinLen(1), After(_header_safe), Kind("key")]
Keys = Annotated[tuple[Key, ...], Before(_comma_separated), Kind("list of keys")]
PersonalKeys = Annotated[tuple[tuple[Key, Text], ...], Before(_personal_keys), Kind("list of pairs")]
AppConversations = Annotated[ConversationRule, Before(_conversation_rule), Kind("choice")]
Tools = Annotated[ToolsRule, Before(_lower), Kind("choice")]
HumanInput = Annotated[Literal["auto", "tool", "text"], Before(_lower), Kind("choice")]
HumanInputOther = Annotated[Literal["ask", "run"], Before(_lower), Kind("choice")]
EndUserId = Annotated[Literal["derived", "plain"], Before(_lower), Kind("choice")]
MaxConcurrent = Annotated[
    Literal["auto", "off"] | int,
    Before(_max_concurrent),
    Kind("choice or integer"),
]
IgnoredFiles = Annotated[Literal["reject", "warn"], Before(_lower), Kind("choice")]
TaskCalls = Annotated[Literal["app", "off"], Before(_lower), Kind("choice")]
Template = Annotated[str, Before(_template), After(_transcript_template), Kind("text")]
ToolsTemplate = Annotated[str, Before(_template), After(_tools_template), Kind("text")]
DifyUrl = Annotated[Text, After(_dify_url), Kind("URL")]
Origins = Annotated[tuple[Annotated[str, After(_origin)], ...], Before(_comma_separated), Kind("list of origins")]
Patterns = Annotated[tuple[Text, ...], Before(_comma_separated), Kind("list")]
Seconds = Annotated[float, Before(_seconds), Gt(0), After(_finite), Kind("duration")]
SecondsOrNone = Annotated[float, Before(_seconds), Ge(0), After(_finite), Kind("duration")]
Bytes = Annotated[int, Before(_bytes), Gt(0), Kind("size")]
AppMode = Annotated[Mode, Before(_mode), Kind("choice")]
SystemPrompt = Annotated[str, Before(_stripped), After(_system_prompt), Kind("choice")]
Inputs = Annotated[dict[str, Any], After(_json_only), Kind("table")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error", "critical"], Before(_log_level), Kind("choice")]
LogFormat = Annotated[Literal["console", "json"], Before(_lower), Kind("choice")]
Heartbeat = Annotated[Literal["chunk", "comment", "off"], Before(_lower), Kind("choice")]
Progress = Annotated[Literal["off", "reasoning"], Before(_lower), Kind("choice")]
Flag = Annotated[bool, Before(_stripped), Kind("boolean")]
Secret = Annotated[SecretStr, Before(_stripped), MinLen(1), After(_secret), Kind("text")]
ApiUrl = Annotated[Text, After(_replicate_url), Kind("URL")]
WebUrl = Annotated[Text, After(_public_url), Kind("URL")]
UploadUrl = Annotated[Text, After(_upload_url), Kind("URL")]
GatewayUrl = Annotated[Text, After(_gateway_url), Kind("URL")]
StateUrl = Annotated[SecretStr, Before(_stripped), MinLen(1), After(check_state_url), Kind("URL")]
StoreUrl = Annotated[SecretStr, Before(_stripped), MinLen(1), After(_store_url), Kind("URL")]
ProxyUrl = Annotated[SecretStr, Before(_stripped), MinLen(1), After(_proxy_url), Kind("URL")]
ProxyExceptions = Annotated[tuple[str, ...], Before(_comma_separated), Kind("list of hosts")]
CertificateFile = Annotated[Text, After(_certificate_file)]
ImageModelName = Annotated[Text, After(_image_model), Kind("Replicate model")]
Hosts = Annotated[tuple[Annotated[str, After(_host)], ...], Before(_comma_separated), Kind("list of hosts")]
Networks = Annotated[tuple[Annotated[str, After(_network)], ...], Before(_comma_separated), Kind("list of networks")]
Form = Annotated[dict[str, str], Before(_form), Kind("list of pairs")]
PictureLinks = Annotated[Literal["local", "ipfs"], Before(_lower), Kind("choice")]
MaskColour = Annotated[Literal["black", "white"], Before(_lower), Kind("choice")]
UnsupportedParameters = Annotated[Literal["reject", "warn", "drop"], Before(_lower), Kind("choice")]
