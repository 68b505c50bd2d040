"""The bench runs, and fails for a target that answers wrongly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import servers
from bench.dialects import Dialect, WrongAnswer, check, turn_body
from bench.scenarios import Scenario, scenario_in

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
    assert len(medians) == 7
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
    with servers.upstream(processors=set()) as url:  # has no /v1/chat/completions
        done = run("--without", "nginx", "--only", "first-text", "--target", url)
    assert done.returncode == 1
    assert "loop on other failed" in done.stderr
    assert "status 404" in done.stderr


def test_the_upstream_reads_the_scenario_from_the_question() -> None:
    paced = Scenario(events=7, size=9, gap_ms=20, hold=True, converse=True)
    assert scenario_in(json.dumps({"query": paced.question}).encode()) == paced


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
