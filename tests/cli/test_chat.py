"""``chat``: a conversation in the terminal, and in a pipe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from openai_dify_proxy_demo import DemoServer
from tests.cli.program import PROGRAM, Program
from tests.cli.terminal import terminal


def ask(program: Program, question: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "chat", *arguments],
        cwd=program.directory,
        env=program.environment(env),
        input=question,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def own_dify(dify: DemoServer) -> dict[str, str]:
    return {"DIFY_API_URL": dify.url, "DIFY_API_KEY": "app-demo-chat", "PORT": "1"}


def test_a_pipe_gets_the_answer_as_it_is(program: Program, dify: DemoServer) -> None:
    ended = ask(program, "SAY<<**bold** and plain>>", **own_dify(dify))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "**bold** and plain\n", "")


def test_reasoning_is_no_part_of_a_piped_answer(program: Program, dify: DemoServer) -> None:
    ended = ask(program, "THINK SAY<<done>>", **own_dify(dify))
    assert ended.stdout == "done\n"


@pytest.mark.parametrize("keyword", ["ERROR:rate", "MIDERROR:rate"])
def test_an_error_is_printed_and_the_exit_code_is_1(program: Program, dify: DemoServer, keyword: str) -> None:
    ended = ask(program, keyword, **own_dify(dify))
    assert ended.returncode == 1
    assert "limits requests" in ended.stderr


def test_a_file_is_sent_with_the_question(program: Program, dify: DemoServer, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    ended = ask(program, "What is this?", "--file", str(tmp_path / "red.png"), **own_dify(dify))
    assert "image/png" in ended.stdout
    missing = ask(program, "What is this?", "--file", "missing.png", **own_dify(dify))
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "Error: missing.png cannot be read: No such file or directory.\n"


def test_a_running_server_is_used_with_its_key(program: Program, dify: DemoServer) -> None:
    env = own_dify(dify) | {"PORT": "0", "API_KEYS": "a-client-key-of-some-length"}
    with program.start("serve", **env) as server:
        url = server.url()
        port = url.rpartition(":")[2].partition("/")[0]
        assert ask(program, "SAY<<hi>>", **env | {"PORT": port}).stdout == "hi\n"
        refused = ask(program, "SAY<<hi>>", "--url", url)
        assert refused.returncode == 1
        assert "requires an API key" in refused.stderr
        allowed = ask(program, "SAY<<hi>>", "--url", url, OPENAI_API_KEY="a-client-key-of-some-length")
        assert allowed.stdout == "hi\n"


def test_a_proxy_that_does_not_answer_is_named(program: Program) -> None:
    ended = ask(program, "hi", "--url", "http://127.0.0.1:1")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: The proxy at http://127.0.0.1:1/v1/chat/completions does not answer")


def test_a_terminal_keeps_the_conversation_until_it_is_cleared(program: Program, dify: DemoServer) -> None:
    with terminal(program, "chat", **own_dify(dify)) as screen:
        screen.until("/help")
        screen.type("One question\n")
        screen.until("You wrote")
        screen.type("RECALL\n")
        screen.until('"One question"')
        screen.type("/clear\n")
        screen.type("RECALL SAY<<nothing more>>\n")
        screen.type("/help\n")
        screen.until("/quit")
        screen.type("/quit\n")
        assert screen.wait() == 0
    assert [run.question for run in dify.log.runs][-3:-1] == ["One question", "RECALL"]
    assert dify.log.runs[-1].history == ()
