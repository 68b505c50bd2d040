"""The bench runs, and fails for a target that answers wrongly."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import figures, servers
from bench.dialects import Dialect, WrongAnswer, check, turn_body
from bench.figures import LoadName
from bench.load import Target
from bench.peers import PEERS, install
from bench.report import Measured, table
from bench.runs import put_load
from bench.scenarios import Scenario, numbered, scenario_in

ROOT = Path(__file__).parents[2]
SCENARIO = Scenario(events=2, size=8)  # its text is "Once there was a"


def run(*flags: str, without: str = "proxy") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--quick", "--without", without, *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_measures_nginx_under_every_load(tmp_path: Path) -> None:
    done = run("--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_bytes())
    medians = {figure["figure"]: figure["targets"]["nginx"]["median"] for figure in figures}
    assert len(medians) == 9
    for name, median in medians.items():
        if name.startswith("CPU"):
            assert median > 0, name


def test_measures_the_cost_of_a_turn_for_each_state_store(tmp_path: Path) -> None:
    done = run("--only", "conversation", "--json", str(tmp_path / "figures.json"), without="nginx")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_bytes())
    names = [figure["figure"].rpartition(" ")[2] for figure in figures]
    assert names == ["memory", "SQLite", "Valkey"]
    assert all(figure["targets"]["proxy"]["median"] > 0 for figure in figures)


def test_a_chat_repeats_all_earlier_messages() -> None:
    chat = json.loads(turn_body(SCENARIO, 3, 2, model="dify"))["messages"]
    assert [message["role"] for message in chat] == ["user", "assistant", "user"]
    assert chat[0]["content"] == f"{SCENARIO.question} chat=3 turn=1"
    assert chat[1]["content"] == "Once there was a"


def test_a_target_that_answers_with_an_error_fails_the_run() -> None:
    with servers.upstream(processors=set()) as url:
        done = run("--without", "nginx", "--only", "first-text", "--target", f"{url}/wrong")
    assert done.returncode == 1
    assert "loop on other failed" in done.stderr
    assert "status 404" in done.stderr


def test_the_upstream_reads_the_scenario_from_the_question() -> None:
    paced = Scenario(events=7, size=9, gap_ms=20, hold=True, converse=True)
    assert scenario_in(json.dumps({"query": paced.question}).encode()) == paced


def test_questions_differ_and_have_the_same_scenario() -> None:
    requests = [numbered(SCENARIO.question.encode(), number) for number in range(3)]
    assert len(set(requests)) == 3
    assert {scenario_in(request) for request in requests} == {SCENARIO}


@pytest.mark.parametrize("load", ["request", "request-50", "request-new", "burst", "first-text"])
def test_the_upstream_answers_openai_requests_with_the_same_texts(load: LoadName) -> None:
    with servers.upstream(processors=set()) as url:
        target = Target(name="upstream", url=url, dialect=Dialect.openai, model="m")
        plan = replace(figures.QUICK[load], requests=16)
        assert put_load(plan, target, url).requests == 16


def test_a_peer_that_cannot_be_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    absent = replace(PEERS[0], package="ferrogw==0.0.0")
    with pytest.raises(servers.NotStarted, match=r"^ferrogw==0\.0\.0 could not be installed: "):
        install(absent, tmp_path)


def test_the_table_shows_multiples_of_nginx_and_verdicts() -> None:
    measured = Measured()
    measured.add("nginx", {figures.REQUEST: 40.0, figures.IDLE: 12.0})
    measured.add("proxy", {figures.REQUEST: 600.0, figures.IDLE: 60.0})
    measured.add("Ferro", {figures.REQUEST: 236.0})
    _, _, request, idle = table(measured).splitlines()
    assert [cell.strip() for cell in request.split("|")[2:-1]] == [
        "600 (15.0 ×)",
        "236 (5.90 ×)",
        "40.0",
        "≤ 5 × nginx",
        "NO",
    ]
    assert [cell.strip() for cell in idle.split("|")[2:-1]] == ["60.0", "", "12.0", "≤ 60", "yes"]


def chunk(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': text}}]})}\n\n"


GOOD = chunk("Once the") + chunk("re was a")


@pytest.mark.parametrize(
    ("stream", "status", "body", "complaint"),
    [
        (True, 500, "oops", "status 500: oops"),
        (True, 200, "", "no event in the response"),
        (True, 200, GOOD, "the stream ends with"),
        (True, 200, chunk("Once the") + "data: [DONE]\n\n", "expected 16 characters"),
        (True, 200, chunk("Once the") + 'data: {"error":{}}\n\n', "the stream ends with"),
        (True, 200, "data: garbage\n\ndata: [DONE]\n\n", "malformed"),
        (False, 200, json.dumps({"choices": [{"message": {"content": "Once"}}]}), "expected 16 characters"),
        (False, 200, "{}", "missing required field"),
    ],
)
def test_a_wrong_answer_is_detected(stream: bool, status: int, body: str, complaint: str) -> None:
    with pytest.raises(WrongAnswer, match=complaint):
        check(Dialect.openai, SCENARIO, stream=stream, status=status, body=body.encode())


def test_a_right_answer_passes() -> None:
    check(Dialect.openai, SCENARIO, stream=True, status=200, body=f"{GOOD}data: [DONE]\n\n".encode())
    whole = json.dumps({"choices": [{"message": {"content": "Once there was a"}}]})
    check(Dialect.openai, SCENARIO, stream=False, status=200, body=whole.encode())
