"""When OpenTelemetry is on."""

from __future__ import annotations

import sys

import pytest
from structlog.testing import capture_logs

from openai_dify_proxy.telemetry.otel.opening import open_otel, wanted_signals

ALL = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, (False, False)),
        ({ALL: ""}, (False, False)),
        ({ALL: "http://c"}, (True, True)),
        ({ALL: "http://c", "OTEL_SDK_DISABLED": "True"}, (False, False)),
        ({ALL: "http://c", "OTEL_SDK_DISABLED": "false"}, (True, True)),
        ({ALL: "http://c", "OTEL_TRACES_EXPORTER": "none"}, (False, True)),
        ({ALL: "http://c", "OTEL_METRICS_EXPORTER": "none"}, (True, False)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, (True, False)),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c"}, (False, True)),
    ],
)
def test_an_endpoint_turns_it_on(env: dict[str, str], wanted: tuple[bool, bool]) -> None:
    assert wanted_signals(env) == wanted


def test_it_loads_nothing_while_it_is_off() -> None:
    assert open_otel({}, remedy="") is None


def test_a_missing_extra_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openai_dify_proxy.telemetry.otel.signals", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with capture_logs() as logs:
        assert open_otel({ALL: "http://c"}, remedy="pip install otel") is None
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("otel_missing", "warning")
    assert "otel" in entry["remedy"]
