"""The bench attacks the proxy, and reports the cost for other clients."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from bench import hostile_clients, servers
from bench.attack_runs import Outcome, table
from bench.attacks import ATTACKS
from bench.hostile_clients import CALLER, Victim
from bench.hostile_dify import ATTACKS as DIFY_ATTACKS
from bench.prober import Seen
from openai_dify_proxy.translate.openai.chat_request import read_chat_request
from openai_dify_proxy.wire.openai.chat import ChatCompletionRequest

ROOT = Path(__file__).parents[2]
MB = 1_000_000


def test_attacks_a_proxy_and_reports_each_attack() -> None:
    names = ["C1-think-model", "C2-pipeline"]
    flags = [flag for name in names for flag in ("--attack", name)]
    command = [sys.executable, "-m", "bench", "--quick", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[-2:]]
    assert [row[0] for row in rows] == names
    for name, _, _, silence, _, _, _, answers, verdict in rows:
        assert int(silence) > 0, name
        assert answers, name
        assert verdict == "yes" or verdict.startswith("NO: "), name


def test_the_table_compares_versions() -> None:
    before = Outcome(ATTACKS["C1-think"], Seen(9.9, 9.8, 60 * MB, 75 * MB), 10 * MB, {"200": 1})
    after = Outcome(ATTACKS["C1-think"], Seen(0.005, 0.004, 60 * MB, 62 * MB), 0, {"200": 5, "401": 2})
    row = [cell.strip() for cell in table([[before, after]]).splitlines()[-1].split("|")[4:-1]]
    assert row == ["9900 → 5", "9800 → 4", "15 → 2", "10 → 0", "200 × 1 → 200 × 5, 401 × 2", "yes"]


@pytest.mark.parametrize("name", ["C1-think", "M1-messages", "M1-role-lines", "M1-tools"])
async def test_expensive_messages_are_valid(name: str) -> None:
    """Else the proxy rejects them before their cost."""
    bodies = []

    class Recorder(Victim):
        async def post(self, path: str, body: bytes | hostile_clients.Json, key: str = CALLER) -> bytes:
            bodies.append(body if isinstance(body, bytes) else json.dumps(body).encode())
            return b""

    await ATTACKS[name].run(Recorder("127.0.0.1", 0))
    body = bodies.pop()
    turn = read_chat_request(msgspec.json.decode(body, type=ChatCompletionRequest))
    assert turn.question.endswith(hostile_clients.QUESTION["content"])
    assert 0.8 * hostile_clients.MIB < len(body) < 1.2 * hostile_clients.MIB


@pytest.mark.parametrize("name", DIFY_ATTACKS)
def test_every_attack_of_dify_begins_with_a_status_line(name: str) -> None:
    assert next(DIFY_ATTACKS[name]()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_the_hostile_dify_rejects_unknown_keys_and_answers_other_questions() -> None:
    with servers.upstream(processors=set(), module="bench.hostile_dify") as url:
        port = int(url.rpartition(":")[2].removesuffix("/v1"))
        dify = Victim("127.0.0.1", port)
        question = {"query": hostile_clients.QUESTION["content"], "response_mode": "blocking"}
        await dify.post("/v1/chat-messages", question, CALLER)
        answer = await dify.post("/v1/chat-messages", question, servers.KEY)
    assert dify.seen == Counter({"401": 1, "200": 1, "unanswered": 0})
    assert json.loads(answer)["answer"] == "Once the"


@pytest.mark.parametrize(
    ("silence", "peak", "left", "missed"),
    [
        (0.2, 150 * MB, 75 * MB, []),
        (0.201, 0, 0, ["silence"]),
        (0, 151 * MB, 0, ["peak"]),
        (0, 0, 76 * MB, ["memory after"]),
    ],
)
def test_the_goals_of_attacks(silence: float, peak: int, left: int, missed: list[str]) -> None:
    seen = Seen(silence, silence_cpu=0, idle_bytes=60 * MB, peak_bytes=60 * MB + peak)
    assert Outcome(ATTACKS["C1-think"], seen, left, {}).missed == missed
