"""The format of log lines, and the masking of secrets in them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from select import PIPE_BUF

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from openai_dify_proxy.errors import mask_keys
from openai_dify_proxy.telemetry import (
    LogFormat,
    bind_request,
    configure_logging,
    escape_unprintable,
    unbind_request,
)
from openai_dify_proxy.telemetry.logs import RequestLines, request_lines
from tests.limits import PATIENCE


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error")]
    levels = [logger.level for logger in loggers]
    configured = structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, own in zip(loggers, levels, strict=True):
        logger.setLevel(own)
    structlog.configure(**configured)
    bind_request("")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_contain_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    bind_request("req_1")
    structlog.get_logger().info("turn finished", model="字", ms=3)
    logging.getLogger("asyncio").warning("slow %s", "callback")
    bind_request("req_2")
    structlog.get_logger().error("gone")
    first, foreign, second = lines(capsys)
    assert first.pop("timestamp")
    assert first == {
        "event": "turn finished",
        "level": "info",
        "model": "字",
        "ms": 3,
        "request_id": "req_1",
    }
    assert (foreign["event"], foreign["logger"], foreign["request_id"]) == ("slow callback", "asyncio", "req_1")
    assert second["request_id"] == "req_2"


def test_unbound_lines_contain_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    outer = bind_request("req_1")
    inner = bind_request("req_2")
    unbind_request(inner)
    structlog.get_logger().info("one")
    unbind_request(outer)
    structlog.get_logger().info("none")
    one, none = lines(capsys)
    assert one["request_id"] == "req_1"
    assert "request_id" not in none


def test_console_lines_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "console")
    structlog.get_logger().info("turn finished", model="support")
    logging.getLogger("asyncio").warning("slow")
    own, foreign = capsys.readouterr().err.splitlines()
    assert "turn finished" in own
    assert "model=support" in own
    assert "[asyncio]" in foreign


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_common_lines_fit_into_110_columns_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    configure_logging("info", "console")
    bind_request("req_0123456789abcdef0123")
    log = structlog.get_logger()
    reason = "The model provider behind Dify limits requests, and this sentence goes on for quite a while."
    for path in ("/v1/models", "/v1/chat/completions", "/v1/images/generations"):
        line = {"method": "POST", "path": path, "status": 200, "outcome": "stop", "model": "support", "ms": 12345}
        log.info("request_finished", **line, prompt_tokens=1234, caller="key-0123456789abcdef", client="127.0.0.1")
    failure = {"outcome": "turn_failed: rate_limit_exceeded", "error": "RateLimited", "code": "rate_limit_exceeded"}
    log.info("request_finished", method="POST", path="/v1/responses", status=429, **failure, reason=reason)
    log.warning("request_rejected", status=400, outcome="rejected: x", error="BadHttp", reason="Not HTTP.", code="x")
    shown = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in terminal.getvalue().splitlines()]
    assert "\x1b[" in terminal.getvalue()
    assert max(map(len, shown)) <= 110
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d info  POST /v1/models 200 stop model=support ms=12345"
        r" prompt_tokens=1234 req_0123456789abcdef0123",
        shown[0],
    )
    assert re.search(r" reason='Not HTTP\.' req_", shown[4])


def test_a_log_that_cannot_be_written_raises_nothing() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        sys.stderr, before = full, sys.stderr
        try:
            configure_logging("info", "json")
            structlog.get_logger().info("request_finished", status=200)
            structlog.get_logger().info("picture_uploaded")
            logging.getLogger("asyncio").warning("slow")
        finally:
            sys.stderr = before
            configure_logging("info", "json")
            with suppress(OSError):
                full.close()


def test_a_long_reason_is_cut_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    configure_logging("info", "console")
    structlog.get_logger().info("request_finished", status=404, outcome="rejected", reason="There is no model. " * 9)
    (shown,) = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in terminal.getvalue().splitlines()]
    assert len(shown) == 110
    assert shown.endswith("…'")


def test_a_file_gets_full_timestamps(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "console")
    structlog.get_logger().info("request_finished", method="GET", path="/v1/models", status=200)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z info  request_finished GET /v1/models 200\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two words", "'two words'"),
        ("a\nforged line", "'a\\nforged line'"),
        ("\x1b[31mred", "'\\x1b[31mred'"),
        ("a=b", "'a=b'"),
        (7, "7"),
        (None, "None"),
        ([1, "a b"], "[1, 'a b']"),
    ],
)
def test_a_value_stays_on_its_line(capsys: pytest.CaptureFixture[str], value: object, shown: str) -> None:
    configure_logging("info", "console")
    structlog.get_logger().info("picture_uploaded", path=value, detail=value)
    line = capsys.readouterr().err
    assert line.endswith(f"picture_uploaded {shown} detail={shown}\n")


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize(
    "fields",
    [
        {"method": "POST", "path": "/v1/x", "status": 200, "outcome": "stop", "ms": 7, "request_id": "req_1"},
        {"method": "GET", "path": "/a b", "status": 404, "outcome": "rejected: x", "reason": "It's 'no'."},
        {"outcome": "ok", "task_id": "t-1", "price": "0.1", "currency": None, "request_id": "a.b:c"},
        {"outcome": "stop", "model": "\x7f字", "client": "::1", "request_id": "a\nb"},
        {"outcome": "stop", "model": "\ud800", "request_id": "req_3"},
    ],
)
@pytest.mark.parametrize("bound", ["", "req_2", "a b"])
async def test_lines_of_requests_are_as_all_others(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat, fields: dict[str, object], bound: str
) -> None:
    configure_logging("info", log_format)
    bind_request(bound)
    finish(**fields)
    structlog.get_logger().info("other_event", **fields)
    one, other = (re.sub(r"\d{4}-[\d:T.-]+Z", "", line) for line in capsys.readouterr().err.splitlines())
    one = one.replace("request_finished", "other_event")
    read = str if log_format == "console" else json.loads
    assert read(one) == read(other)


def request_writer() -> RequestLines:
    writer = request_lines()
    assert writer is not None
    return writer


def finish(**fields: object) -> None:
    """Write the line of a request with these fields, by the quick way."""
    assert request_writer().write("info", 0.0, lambda: {"event": "request_finished", **fields})


@pytest.mark.parametrize("model", ["gpt", "模型"])
async def test_the_line_of_a_request_has_the_time_of_its_end(capsys: pytest.CaptureFixture[str], model: str) -> None:
    configure_logging("info", "json")
    request_writer().write("info", 1_769_904_000.25, lambda: {"event": "request_finished", "model": model})
    logging.getLogger().handlers[0].flush()
    assert [line["timestamp"] for line in lines(capsys)] == ["2026-02-01T00:00:00.250000Z"]


async def test_a_line_that_cannot_be_made_does_not_affect_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    bind_request("req_1")
    finish(number=0)
    request_writer().write("info", 0.0, lambda: {"event": "request_finished", "number": 1 // 0})
    finish(number=2)
    logging.getLogger().handlers[0].flush()
    found = lines(capsys)
    assert [line.get("number") for line in found] == [0, None, 2]
    assert "ZeroDivisionError" in str(found[1]["exception"])
    assert "request_id" not in found[1]


async def test_lines_of_requests_are_written_together_and_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    finish(number=0)
    finish(number=1)
    assert lines(capsys) == []
    async with asyncio.timeout(PATIENCE):
        while not (found := lines(capsys)):  # noqa: ASYNC110 - no event reports that a line was written
            await asyncio.sleep(0)
    assert [line["number"] for line in found] == [0, 1]
    finish(number=2)
    finish(number=3)
    structlog.get_logger().info("picture_uploaded", number=4)
    finish(number=5)
    logging.getLogger("asyncio").warning("slow")
    assert [line.get("number") for line in lines(capsys)] == [2, 3, 4, 5, None]
    for number in range(100):
        finish(number=number)
    assert len(lines(capsys)) > 50


async def test_lines_that_are_written_together_are_not_mixed_with_those_of_other_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = Writes()
    monkeypatch.setattr("sys.stderr", stderr)
    configure_logging("info", "json")
    for number in range(40):
        finish(path="a" * 100 * number)
    logging.getLogger("asyncio").warning("b" * 4000)
    assert sum(written.count("\n") for written in stderr.writes) == 41
    assert all(len(written) <= PIPE_BUF for written in stderr.writes if written.count("\n") > 1)


class Writes(io.StringIO):
    """Records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


@pytest.mark.parametrize("end", ["raise SystemExit(1)", "1 / 0", "logging.shutdown(); os._exit(1)"])
def test_a_process_that_ends_loses_no_line(end: str) -> None:
    program = f"""
import asyncio, logging, os
from openai_dify_proxy.telemetry.logs import configure_logging, request_lines

async def main():
    configure_logging("info", "json")
    request_lines().write("info", 0.0, lambda: {{"event": "request_finished"}})
    {end}

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.returncode == 1
    assert b'"event":"request_finished"' in ended.stderr


def test_only_structlog_writes_to_terminals_and_by_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging("info", "json")
    with capture_logs():
        assert not request_writer().write("info", 0.0, dict)
    structlog.configure(processors=[])
    assert request_lines() is None
    monkeypatch.setattr("sys.stderr", Terminal())
    configure_logging("info", "console")
    assert request_lines() is None


HOSTILE = [
    "\x00",
    "\x07",
    "\t",
    "\n",
    "\r",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\x9b31m",
    "\xad",
    "\u061c",
    "\u200b",
    "\u200e",
    "\u200f",
    "\u2028",
    "\u2029",
    "\u202a",
    "\u202e",
    "\u2066",
    "\u2069",
    "\ufeff",
    "\ufff9",
    "\ud800",
    "\U000e0041",
]
"""Characters that control a terminal, end a line, reorder text, or are invisible."""


class Unreadable(Exception):
    pass


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_no_line_holds_unprintable_characters(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat, hostile: str
) -> None:
    configure_logging("info", log_format)
    text = f"a{hostile}b"
    fields = {text: text, "path": text, "nested": {text: [text, (text, Unreadable(text))]}, "error": Unreadable(text)}
    bind_request(text)
    structlog.get_logger().info(text, **fields)
    logging.getLogger("uvicorn.error").warning("Invalid %s", text)
    logging.getLogger(text).warning("x")
    written = capsys.readouterr().err
    assert written.count("\n") == 3
    assert written.replace("\n", "").isprintable()
    if log_format == "json":
        line = json.loads(written.splitlines()[0])
        assert (line["event"], line["path"], line["nested"][escape_unprintable(text)][0]) == (text, text, text)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_holds_no_control_character_but_its_line_ends(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure_logging("info", log_format)
    try:
        raise Unreadable("\x1b[2J\r\u202e forged")
    except Unreadable:
        structlog.get_logger().exception("failed")
        logging.getLogger("aiohttp").exception("failed")
    written = capsys.readouterr().err
    assert written.replace("\n", "").isprintable()
    assert written.count("Traceback (most recent call last)") == 2
    if log_format == "console":
        assert "Unreadable: \\x1b[2J\\r\\u202e forged\n" in written


@given(st.text())
def test_escaped_texts_are_printable(text: str) -> None:
    escaped = escape_unprintable(text)
    assert escaped.isprintable()
    assert escaped == text or not text.isprintable()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_long_values_are_cut(capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
    configure_logging("info", log_format)
    long = "y" * 100_000
    structlog.get_logger().info("picture_uploaded", path=long, nested=[long], **{"z" * 100_000: 1})
    logging.getLogger("aiohttp").warning(long)
    try:
        raise Unreadable("x" * 100_000 + "the end")
    except Unreadable:
        structlog.get_logger().exception("failed")
    first, second, *traceback = capsys.readouterr().err.splitlines(keepends=True)
    assert "…" in first
    assert len(first) < 2000
    assert "…" in second
    assert len(second) < 2200
    assert "the end" in traceback[-1]
    assert len("".join(traceback)) < 21_000


@pytest.mark.parametrize(("level", "shown"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")])
def test_the_minimum_level(capsys: pytest.CaptureFixture[str], level: str, shown: str) -> None:
    configure_logging(level, "json")
    log = structlog.get_logger()
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert "".join(str(line["event"]) for line in lines(capsys)) == shown


@pytest.mark.parametrize(("level", "shown"), [("info", ["bad"]), ("debug", ["started", "bad"])])
def test_uvicorn_warnings_are_logged_and_its_progress_only_at_debug(
    capsys: pytest.CaptureFixture[str], level: str, shown: list[str]
) -> None:
    configure_logging(level, "json")
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("uvicorn.error").error("bad")
    assert [line["event"] for line in lines(capsys)] == shown


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_keys_are_masked_everywhere(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging("info", "json" if log_format == "json" else "console")
    key = "app-Xk3jT9sQwLm2"
    log = structlog.get_logger()
    message = f"with {key}"
    log.info(message, value=key, nested={"in": [key, (key, None)]}, thing=ValueError(key))
    logging.getLogger("aiohttp").error("with %s", key)
    try:
        raise ValueError(key)
    except ValueError:
        log.exception("failed")
        logging.getLogger("aiohttp").exception("failed")
    written = capsys.readouterr().err
    assert "Xk3jT9sQwLm2" not in written
    assert written.count("app-***") >= 8


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("app-Xk3jT9sQwLm2 refused", "app-*** refused"),
        ("Authorization: Bearer Xk3jT9sQwLm2", "Authorization: Bearer ***"),
        ("sk-proj-Xk3jT9_sQwLm2", "sk-***"),
        ("token r8_Xk3jT9sQwLm2.", "token r8_***"),
        ("an app-wide task-force", "an app-wide task-force"),
    ],
)
def test_mask_keys(text: str, masked: str) -> None:
    assert mask_keys(text) == masked
