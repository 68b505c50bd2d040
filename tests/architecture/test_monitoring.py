"""The metrics are documented, and the dashboard and the alert rules use only metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from openai_dify_proxy.telemetry.metrics.definitions import METRICS
from openai_dify_proxy.telemetry.records import OUTCOMES

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/openai-dify-proxy.json"

TARGET_LABELS = {"instance", "job"}
"""Labels that Prometheus adds."""


def samples() -> dict[str, set[str]]:
    """Return the labels of each sample name that a scrape has."""
    found = {}
    for metric in METRICS:
        labels = {*metric.labels} | TARGET_LABELS
        match metric.kind:
            case "counter":
                found[f"{metric.full_name}_total"] = labels
            case "gauge":
                found[metric.full_name] = labels
            case "histogram":
                found[f"{metric.full_name}_bucket"] = labels | {"le"}
                found[f"{metric.full_name}_sum"] = found[f"{metric.full_name}_count"] = labels
    return found


SAMPLES = samples()


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert isinstance(dashboard["panels"], list)
    return dashboard["panels"]


def expressions() -> list[str]:
    in_panels = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*(rule["expr"] for rule in alerts()), *(expr.replace("$__rate_interval", "5m") for expr in in_panels)]


def parts(node: Any) -> Iterator[Any]:
    """Yield an expression and all expressions in it."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "args", "vs"):
        child = getattr(node, name, None)
        for one in child if isinstance(child, list) else [child]:
            if one is not None:
                yield from parts(one)


@pytest.mark.parametrize("expression", dict.fromkeys(expressions()))
def test_expressions_use_metrics_and_labels_that_exist(expression: str) -> None:
    nodes = list(parts(promql_parser.parse(expression)))
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert selectors
    known: set[str] = set()
    for selector in selectors:
        assert selector.name in SAMPLES, selector.name
        known |= SAMPLES[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in SAMPLES[selector.name], matcher.name
            if matcher.name == "outcome":
                assert matcher.value in OUTCOMES
    for node in nodes:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= known


def test_alerts_are_complete() -> None:
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 8
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["for"]
        assert rule["annotations"].keys() == {"summary", "description"}
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in TARGET_LABELS or f"by ({label}" in rule["expr"]


def test_panels_do_not_overlap() -> None:
    taken = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_legends_name_labels_of_their_expression() -> None:
    for panel in panels():
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target


def test_every_metric_is_in_the_dashboard() -> None:
    used = " ".join(expressions())
    assert [metric.full_name for metric in METRICS if metric.full_name not in used] == []


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    suffix = {"counter": "_total", "gauge": "", "histogram": ""}
    assert documented == {f"{m.full_name}{suffix[m.kind]}": (m.kind, m.labels) for m in METRICS}
