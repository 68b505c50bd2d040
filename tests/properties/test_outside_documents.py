"""Documents from outside, damaged in any way, are read or rejected with the error that their reader announces."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from openai_dify_proxy.errors import ProxyError
from openai_dify_proxy.pictures.records import decode_record
from openai_dify_proxy.settings import Settings, SettingsError
from openai_dify_proxy.settings.sources import load_settings
from openai_dify_proxy.translate.dify.errors import translate_rejection
from openai_dify_proxy.translate.pictures.ipfs_answers import NoCid, read_upload_answer
from openai_dify_proxy.translate.pictures.ipfs_cid import normalize_cid
from openai_dify_proxy.translate.replicate.errors import throttle_delay, translate_api_error, translate_failed
from openai_dify_proxy.wire.replicate import Prediction

CID = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
NAMES = (
    *("Hash", "cid", "/", "Name", "Type", "Message", "data", "value"),  # IPFS
    *("code", "message", "status", "detail", "title", "invalid_fields", "field", "description", "retry_after"),
    *("sha256", "name", "size", "width", "height", "media_type", "extension", "created_at", "ipfs"),  # records
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from([CID, "error", "success", "nsfw", "resets in ~5s", "1e999", "x" * 300]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return JSON, in which some bytes may be replaced, missing or too many."""
    document = json.dumps(draw(values)).encode()
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, len(document)))
        end = draw(st.integers(begin, min(begin + 8, len(document))))
        document = document[:begin] + draw(st.binary(max_size=4)) + document[end:]
    return document


DEEP = b'{"Hash":' * 50_000
NO_UTF_8 = b'{"Hash":"\xff","code":"\xff","detail":"\xff"}'


@given(damaged(), st.text(max_size=4))
@example(DEEP, "")
@example(NO_UTF_8, "")
@example(b'{"Hash":"' + CID.encode() + b'"}\n' + NO_UTF_8, "")
def test_an_answer_of_an_ipfs_node(body: bytes, name: str) -> None:
    try:
        cid = read_upload_answer(body, name)
    except NoCid:
        return
    assert normalize_cid(cid) == cid


@given(damaged())
@example(DEEP)
@example(NO_UTF_8)
def test_a_picture_record(data: bytes) -> None:
    record = decode_record(data)
    assert record is None or isinstance(record.name, str)


@given(st.sampled_from([400, 401, 402, 403, 404, 422, 429, 500, 503]), damaged())
@example(422, DEEP)
@example(422, NO_UTF_8)
def test_an_error_of_replicate(status: int, body: bytes) -> None:
    error = translate_api_error(status, {"retry-after": body.decode("latin-1")}, body)
    assert isinstance(error, ProxyError)
    assert 0 <= throttle_delay({}, body) < float("inf")


@given(st.sampled_from(["failed", "canceled", "aborted"]), values)
def test_a_failed_prediction(status: str, error: Any) -> None:
    assert isinstance(translate_failed(Prediction(status=status, error=error)), ProxyError)


@given(st.integers(300, 599), st.text(max_size=20), damaged(), st.booleans())
@example(400, "application/json", DEEP, False)
@example(400, "application/json", NO_UTF_8, True)
def test_an_error_of_dify(status: int, content_type: str, body: bytes, own_key: bool) -> None:
    error = translate_rejection(
        status, content_type, body, url="http://dify.example/v1", setting="DIFY_API_URL", own_key=own_key
    )
    assert isinstance(error, ProxyError)
    assert 400 <= error.status < 600


# The settings file

SECTIONS = ("", "apps", "apps.one", "images", "images.models.one", "tools", "keys.one", "limits")
KEYS = (
    *(field.name for field in fields(Settings)),
    "aliases",
    "inputs",
    "model",
    "api_key",
    "api_url",
    "api_key_env",
    "mode",
    "nonsense",
)


def toml(value: Any) -> str:
    """Write a value as TOML, which has no null."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml(item)}' for key, item in value.items())}}}"
    return json.dumps(value) if isinstance(value, str) else str(value)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)
toml_values = st.recursive(
    st.one_of(
        st.booleans(), st.integers(), st.floats(), texts, st.sampled_from(["app-x", "off", "auto", "http://a/v1"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
tables = st.dictionaries(
    st.sampled_from(SECTIONS), st.dictionaries(st.sampled_from(KEYS), toml_values, max_size=4), max_size=4
)


@given(tables)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example({"apps": {"one": 3}})
@example({"": {"apps": 3, "images": 3, "tools": 3}})
@example({"images": {"models": {"one": 3}}})
def test_a_settings_file_is_valid_or_its_problems_are_named(tmp_path: Path, written: dict[str, dict[str, Any]]) -> None:
    lines = []
    for section, table in sorted(written.items()):
        lines += [f"[{section}]"] if section else []
        lines += [f"{name} = {toml(value)}" for name, value in table.items()]
    read_settings(tmp_path, "\n".join(lines).encode())


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b"apps = " + b"[" * 50_000)
@example(b"port = " + b"9" * 5000)
def test_any_bytes_as_a_settings_file(tmp_path: Path, content: bytes) -> None:
    read_settings(tmp_path, content)


def read_settings(directory: Path, content: bytes) -> None:
    file = directory / "apps.toml"
    file.write_bytes(content)
    with suppress(SettingsError):
        load_settings(env={"DIFY_API_URL": "http://127.0.0.1/v1"}, dotenv=None, config=file)
