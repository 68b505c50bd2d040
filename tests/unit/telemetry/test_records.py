"""Records of requests: their outcomes, and the lines that the log has of them."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from openai_dify_proxy import errors
from openai_dify_proxy.errors import (
    ConversationBusy,
    InvalidRequest,
    ProxyError,
    QueueFull,
    QueueTimeout,
    Quoting,
    RateLimited,
    StreamCut,
    TooManyTurns,
    UpstreamFailed,
)
from openai_dify_proxy.events import Usage
from openai_dify_proxy.telemetry import AccessLog, RequestRecord, RequestRecords
from openai_dify_proxy.telemetry.records import BATCH, OUTCOMES

CUT = StreamCut("Dify's stream broke off.", started=True)
FULL = QueueFull("Too many turns wait.")


def record(**fields: Any) -> RequestRecord:
    given: dict[str, Any] = {"route": "/v1/x", "status": 200} | fields
    made = RequestRecord(method="POST", path="/v1/x", **given)
    made.begin(0.0)
    return made


def line(made: RequestRecord, key: bytes | None = b"key") -> dict[str, Any]:
    """Return the only line that the log has of a record."""
    with capture_logs() as logs:
        RequestRecords(AccessLog(key)).close(made)
    (entry,) = logs
    return dict(entry)


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"finish_reason": "stop", "app": "a"}, "stop"),
        ({"finish_reason": "tool_calls", "app": "a"}, "tool_calls"),
        ({"finish_reason": "stop", "departure": "client_gone"}, "stop"),  # it left after the end of the turn
        ({"finish_reason": "stop", "departure": "cancelled"}, "cancelled"),
        ({"departure": "client_gone", "status": 0}, "client_gone"),
        ({"departure": "client_stalled"}, "client_stalled"),
        ({}, "ok"),
        ({"status": 500}, "failed"),
        ({"error": CUT, "app": "a"}, "turn_failed"),
        ({"error": CUT, "app": "a", "finish_reason": "stop"}, "turn_failed"),
        ({"error": CUT, "prediction_ids": ["p"]}, "turn_failed"),
        ({"error": FULL, "status": 429}, "rejected"),
        ({"error": FULL, "status": 429, "app": "a"}, "rejected"),  # nothing was sent to Dify
        ({"error": TooManyTurns("Wait."), "status": 429, "app": "a"}, "rejected"),
        ({"error": ConversationBusy("Wait."), "status": 409, "app": "a"}, "rejected"),
        ({"error": QueueTimeout("Dify was busy."), "status": 503, "app": "a"}, "failed"),
        ({"error": RateLimited("Dify limits requests."), "status": 429, "app": "a"}, "turn_failed"),
        ({"error": CUT, "status": 502}, "failed"),
    ],
)
def test_outcome(fields: dict[str, Any], outcome: str) -> None:
    assert record(**fields).outcome == outcome
    assert outcome in OUTCOMES


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({}, "info"),
        ({"route": "/health"}, "debug"),
        ({"route": "/ready", "status": 503, "error": CUT}, "warning"),
        ({"status": 429, "error": FULL}, "info"),
        ({"status": 502, "error": CUT}, "warning"),
        ({"status": 200, "error": CUT, "app": "a"}, "warning"),  # a stream that failed
        ({"status": 500}, "warning"),
        ({"kind": "rejection", "status": 400, "error": FULL}, "warning"),
    ],
)
def test_level(fields: dict[str, Any], level: str) -> None:
    assert line(record(**fields))["log_level"] == level


def test_a_failed_stream_says_so() -> None:
    entry = line(record(error=CUT, app="support", model="support", streamed=True))
    assert entry["status"] == 200
    assert entry["outcome"] == "turn_failed: upstream_incomplete"
    assert (entry["error"], entry["code"], entry["reason"]) == ("StreamCut", "upstream_incomplete", CUT.message)
    assert "app" not in entry  # the model has the same name


def test_a_reason_does_not_repeat_what_an_upstream_said() -> None:
    error = UpstreamFailed(Quoting("The run failed in Dify", "the question was violet."))
    assert error.message == "The run failed in Dify: the question was violet."
    assert type(error.message) is str  # msgspec encodes no subclasses
    entry = line(record(error=error, app="a", status=502))
    assert entry["reason"] == "The run failed in Dify."
    assert "violet" not in str(entry)


def test_the_line_has_the_turn() -> None:
    made = record(model="gpt-4", app="support", usage=Usage(3, 4, 7, "0.0012", "USD"), queued=0.25, caller="key-1")
    made.first_text = made.started + 0.5
    entry = line(made)
    assert {name: entry[name] for name in ("model", "app", "prompt_tokens", "completion_tokens", "queue_ms")} == {
        "model": "gpt-4",
        "app": "support",
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "queue_ms": 250,
    }
    assert (entry["price"], entry["currency"], entry["first_text_ms"], entry["caller"]) == (
        "0.0012",
        "USD",
        500,
        "key-1",
    )


def test_the_line_has_prices_in_several_currencies() -> None:
    entry = line(record(app="support", usage=Usage(3, 4, 7, prices=(("USD", "0.0012"), ("EUR", "9")))))
    assert entry["prices"] == "0.0012 USD, 9 EUR"
    assert "price" not in entry


def test_a_label_stands_for_the_caller() -> None:
    assert line(record(caller="key-1", label="team"))["caller"] == "team"


def test_end_users_are_hashed_with_a_key() -> None:
    first, again, other = (line(record(end_user="anna@example.com"), key)["user"] for key in (b"k", b"k", b"l"))
    assert first == again != other
    assert "anna" not in first
    assert line(record(end_user="anna"), None)["user"] == "anna"
    assert line(record(end_user="\ud800"))["user"]


class Unread(str):
    """The name of an end user that must not be hashed."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise AssertionError


def test_a_line_that_the_level_leaves_out_is_not_made() -> None:
    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        with capture_logs() as logs:
            records = RequestRecords(AccessLog(b"key"))
            records.close(record(end_user=Unread("anna")))
            records.close(record(status=500))
    finally:
        structlog.configure(**configured)
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_a_record_is_closed_once() -> None:
    seen: list[RequestRecord] = []
    records = RequestRecords(seen.append)
    made = record()
    records.close(made)
    records.close(made)
    assert seen == [made]


def test_a_broken_sink_stops_no_other() -> None:
    def broken(_record: RequestRecord) -> None:
        raise RuntimeError

    seen: list[RequestRecord] = []
    records = RequestRecords(broken)
    records.add_sink(seen.append)
    with capture_logs() as logs:
        records.close(record())
    assert len(seen) == 1
    assert [entry["event"] for entry in logs] == ["record_lost"]


def test_records_are_counted_in_batches() -> None:
    def broken(_record: RequestRecord) -> None:
        raise RuntimeError

    seen: list[RequestRecord] = []
    records = RequestRecords()
    records.add_counter(broken)
    records.add_counter(seen.append)
    made = [record() for _ in range(BATCH + 1)]
    with capture_logs() as logs:
        for one in made[: BATCH - 1]:
            records.close(one)
        assert seen == []
        for one in made[BATCH - 1 :]:
            records.close(one)
        assert seen == made[:BATCH]
        records.count()
    assert seen == made
    assert {entry["event"] for entry in logs} == {"record_lost"}


def test_overhead_leaves_out_waits_and_dify() -> None:
    made = record(streamed=True)
    made.started = 100.0
    assert made.overhead is None
    made.received, made.elsewhere, made.sent = 101.0, 2.0, 103.5
    made.first_text, made.last_text, made.first_byte = 110.0, 120.0, 110.25
    assert made.overhead == pytest.approx(0.75)
    made.streamed, made.first_byte = False, 120.5
    assert made.overhead == pytest.approx(1.0)


def all_errors(root: type[ProxyError] = ProxyError) -> list[type[ProxyError]]:
    return [root, *(found for child in root.__subclasses__() for found in all_errors(child))]


@pytest.mark.parametrize("kind", [kind for kind in all_errors() if kind is not errors.ImagesOff])
def test_every_error_has_its_class_and_reason_in_the_line(kind: type[ProxyError]) -> None:
    entry = line(record(error=kind("It failed.", log="For the operator."), status=kind.status))
    assert (entry["error"], entry["reason"], entry["detail"]) == (kind.__name__, "It failed.", "For the operator.")
    assert entry["log_level"] == ("warning" if kind.status >= 500 else "info")


def test_a_closed_record_keeps_nothing_that_its_error_has_seen() -> None:
    class Text:
        """A text of a request."""

    def fail() -> tuple[ProxyError, weakref.ref[Text]]:
        text = Text()
        try:
            try:
                raise ValueError(text)
            except ValueError:
                raise InvalidRequest("The text is not valid.") from None
        except ProxyError as error:
            return error, weakref.ref(text)

    record = RequestRecord()
    error, text = fail()
    record.fail(error)
    RequestRecords().close(record)
    gc.collect()
    assert record.error is error
    assert text() is None
