"""Each alert fires in its situation, and none does while all is well; for ``scripts/promtool``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.promtool.test_promtool import PROMETHEUS, promtool

P = "openai_dify_proxy_"
ALERTS = PROMETHEUS / "alerts.yml"
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
}
MINUTES = 60

WELL = {
    "build_info": "1x60",
    'dify_up{dify="d"}': "1x60",
    'app_usable{app="a"}': "1x60",
    'turns_total{app="a",outcome="stop"}': "0+99x60",
    'turns_total{app="a",outcome="turn_failed"}': "0+1x60",
    'requests_total{status="200"}': "0+99x60",
    'requests_total{status="500"}': "0+1x60",
    'first_text_seconds_bucket{app="a",le="30"}': "0+99x60",
    'first_text_seconds_bucket{app="a",le="60"}': "0+100x60",
    'first_text_seconds_bucket{app="a",le="+Inf"}': "0+100x60",
    'queued_turns{dify="d"}': "2x60",
    'turn_limit{dify="d"}': "8x60",
    'state_faults_total{instance="i"}': "0x60",
    'overhead_seconds_bucket{le="0.1"}': "0+100x60",
    'overhead_seconds_bucket{le="+Inf"}': "0+100x60",
    "ipfs_backlog": "3x60",
}
"""Samples by minute, in promtool's notation."""


class Case(NamedTuple):
    """What is wrong, the labels of the alert, and its summary (None: it has no placeholder)."""

    wrong: dict[str, str]
    labels: dict[str, str]
    summary: str | None = None


CASES = {
    "ProxyDown": Case({"build_info": "stale"}, {}),
    "DifyDown": Case({'dify_up{dify="d"}': "0x60"}, {"dify": "d"}, "Dify at d does not answer."),
    "DifyRefusesKey": Case({'app_usable{app="a"}': "0x60"}, {"app": "a"}, "Dify refuses the key of the app a."),
    "TurnsFail": Case(
        {'turns_total{app="a",outcome="turn_failed"}': "0+33x60"}, {"app": "a"}, "25% of the turns of a fail."
    ),
    "ServerErrors": Case({'requests_total{status="500"}': "0+33x60"}, {}, "25% of the requests get a 5xx."),
    "FirstTextSlow": Case(
        {'first_text_seconds_bucket{app="a",le="30"}': "0+90x60"},
        {"app": "a"},
        "One turn in twenty of a waits longer than 30 s for its first text.",
    ),
    "QueueLong": Case(
        {'queued_turns{dify="d"}': "9x60"}, {"dify": "d"}, "More turns wait for Dify at d than it serves."
    ),
    "StateUnavailable": Case(
        {'state_faults_total{instance="i"}': "0+1x60"}, {"instance": "i"}, "The state of i does not answer."
    ),
    "ProxySlow": Case(
        {'overhead_seconds_bucket{le="0.1"}': "0+90x60", 'overhead_seconds_bucket{le="0.5"}': "0+100x60"}, {}
    ),
    "IpfsBacklog": Case({"ipfs_backlog": "101x60"}, {}, "101 pictures wait for their upload to IPFS."),
}


def complaints(directory: Path, series: dict[str, str], expected: dict[str, list[Any]]) -> str:
    """Return what promtool finds wrong if these alerts, and no others, are to fire after an hour of these samples."""
    test = {
        "interval": "1m",
        "input_series": [{"series": P + name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{MINUTES}m", "alertname": name, "exp_alerts": expected.get(name, [])} for name in RULES
        ],
    }
    path = directory / "alerts.json"  # JSON is YAML
    path.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}))
    return promtool("test", "rules", path)


def test_there_is_a_case_for_every_alert() -> None:
    assert CASES.keys() == RULES.keys()


def test_no_alert_fires_while_all_is_well(tmp_path: Path) -> None:
    assert complaints(tmp_path, WELL, {}) == ""


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_alone_in_its_situation(tmp_path: Path, name: str) -> None:
    case, rule = CASES[name], RULES[name]
    annotations = rule["annotations"] | ({} if case.summary is None else {"summary": case.summary})
    alert = {"exp_labels": rule["labels"] | case.labels, "exp_annotations": annotations}
    assert complaints(tmp_path, WELL | case.wrong, {name: [alert]}) == ""
