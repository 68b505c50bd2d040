"""What is counted of a record, and labels that no client can choose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openai_dify_proxy.errors import QueueFull, StreamCut
from openai_dify_proxy.events import Usage
from openai_dify_proxy.telemetry import RequestRecord, RequestRecords
from openai_dify_proxy.telemetry.metrics import definitions as d
from openai_dify_proxy.telemetry.metrics.request_metrics import MAX_CURRENCIES, Distribution, RequestMetrics


def record(**fields: Any) -> RequestRecord:
    given: dict[str, Any] = {"method": "POST", "route": "/v1/x", "status": 200} | fields
    made = RequestRecord(**given)
    made.begin(0.0)
    return made


def counted(*made: RequestRecord, models: tuple[str, ...] = ()) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the counters after these records, by the name and labels."""
    metrics = RequestMetrics(models)
    records = RequestRecords(metrics)
    for one in made:
        records.close(one)
    counts, _ = metrics.take()
    return {(metric.name, labels): amount for (metric, labels), amount in counts.items()}


def test_requests_count_by_template_and_status() -> None:
    unmatched = record(method="BREW", route="", path="/secret", status=404)
    assert counted(record(), record(), record(status=0), unmatched, record(kind="response", app="a")) == {
        ("requests", ("POST", "/v1/x", "200")): 2,
        ("requests", ("POST", "/v1/x", "499")): 1,
        ("requests", ("other", "other", "404")): 1,
        ("turns", ("a", "ok")): 1,
    }


def test_a_turn_counts_its_tokens_and_its_price() -> None:
    usage = Usage(3, 4, 7, "0.25", "USD")
    found = counted(*(record(app="a", finish_reason="stop", usage=usage, files=2) for _ in range(2)))
    assert found["turns", ("a", "stop")] == 2
    assert found["tokens", ("a", "prompt")] == 6
    assert found["tokens", ("a", "completion")] == 8
    assert found["price", ("a", "USD")] == 0.5
    assert found["files", ("a",)] == 4


def test_prices_in_several_currencies_count() -> None:
    found = counted(record(app="a", usage=Usage(prices=(("USD", "0.25"), ("EUR", "9")))))
    assert (found["price", ("a", "USD")], found["price", ("a", "EUR")]) == (0.25, 9)


@pytest.mark.parametrize("price", ["", "free", "-1", "nan", "inf", "0"])
def test_a_price_that_is_none_does_not_count(price: str) -> None:
    assert not any(name == "price" for name, _ in counted(record(app="a", usage=Usage(price=price, currency="USD"))))


def test_only_failures_of_upstreams_count_as_such() -> None:
    found = counted(
        record(app="a", error=StreamCut("Cut.", code="a code of Dify")), record(app="a", error=QueueFull("Full."))
    )
    assert {labels: amount for (name, labels), amount in found.items() if name == "upstream_errors"} == {
        ("a", "StreamCut"): 1
    }


def test_pictures_count_by_configured_models() -> None:
    known, unknown = record(model="sdxl", pictures=2), record(model="someone/else", pictures=1)
    found = counted(known, unknown, record(model=None, pictures=1), models=("sdxl",))
    assert {labels: amount for (name, labels), amount in found.items() if name == "pictures"} == {
        ("sdxl",): 2,
        ("other",): 2,
    }


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.none() | st.text()), max_size=60))
def test_labels_are_bounded_whatever_clients_and_dify_send(sent: list[tuple[str, str, str, str | None]]) -> None:
    found = counted(
        *(
            record(
                method=method, route="", path=path, model=model, pictures=1, app="a", usage=Usage(price="1", currency=c)
            )
            for method, path, model, c in sent
        )
    )
    assert len(found) <= 5 + MAX_CURRENCIES
    assert {label for name, labels in found if name in ("requests", "pictures") for label in labels} <= {
        "other",
        "499",
        "200",
    }


def test_currencies_beyond_the_limit_are_other() -> None:
    names = [f"A{chr(65 + number)}C" for number in range(MAX_CURRENCIES + 4)]
    found = counted(*(record(app="a", usage=Usage(price="1", currency=name)) for name in names))
    prices = {labels: amount for (name, labels), amount in found.items() if name == "price"}
    assert len(prices) == MAX_CURRENCIES + 1
    assert prices["a", "other"] == 4


def test_values_fall_into_their_buckets() -> None:
    metrics = RequestMetrics()
    for seconds in (0.05, 0.06, 5000.0):
        made = record(app="a", queued=seconds)
        RequestRecords(metrics).close(made)
    _, distributions = metrics.take()
    waits = next(found for (metric, _), found in distributions.items() if metric is d.QUEUE_WAIT)
    assert isinstance(waits, Distribution)
    assert (waits.counts[0], waits.counts[1], waits.counts[-1], sum(waits.counts)) == (1, 1, 1, 3)
    assert waits.total == pytest.approx(5000.11)
    assert metrics.take() == ({}, {})
