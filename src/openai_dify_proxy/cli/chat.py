"""The command ``chat``: a conversation with an app in the terminal.

In a terminal, answers are shown as Markdown while they arrive. Without one, the question is read from standard input
and the answer is printed as it is, so that the command can be part of a pipe.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from openai_dify_proxy.cli.chat_client import ChatClient, ChatFailed, is_serving, serving
from openai_dify_proxy.cli.demo import demo_dify, needs_demo
from openai_dify_proxy.settings import Settings

HELP = """\
/file PATH   send a file with the next question
/clear       start a new conversation
/help        show this
/quit        end (or press Ctrl-D)
Ctrl-C stops an answer."""

FRAMES_PER_SECOND = 12


def chat(settings: Settings, model: str | None, *, url: str | None, files: list[Path]) -> bool:
    """Talk to ``model``, and return whether the last question was answered.

    ``url`` is the proxy to talk to. By default it is the one that runs with these settings, or one for this session.
    The key is that of ``OPENAI_API_KEY``, else the first of the settings. Raises SettingsError.
    """
    keys = [key.get_secret_value() for key in settings.api_keys] if url is None else []
    key = os.environ.get("OPENAI_API_KEY") or next(iter(keys), None)
    with ExitStack() as stack:
        if url is None:
            url = f"http://127.0.0.1:{settings.port}" if is_serving(settings) else _serve(settings, stack)
        session = Session(ChatClient(url, model, key), files)
        return session.talk() if sys.stdin.isatty() else session.answer_input()


def _serve(settings: Settings, stack: ExitStack) -> str:
    """Serve the configured apps, or those of the demo, for as long as ``stack`` is open. Return the URL."""
    if needs_demo(settings):
        settings = stack.enter_context(demo_dify(settings, paced=True))
    return stack.enter_context(serving(settings))


class Session:
    """The session: questions, answers, and the files for the next question."""

    def __init__(self, client: ChatClient, files: list[Path]) -> None:
        self._client = client
        self._files = files
        self._console = Console()

    def answer_input(self) -> bool:
        """Answer the question on standard input."""
        return self._answer(sys.stdin.read().strip())

    def talk(self) -> bool:
        """Answer questions until the user ends the session."""
        self._console.print("Ask something. /help lists the commands.", style="dim", highlight=False)
        answered = True
        while True:
            try:
                line = self._console.input("[bold]> [/]").strip()
            except (EOFError, KeyboardInterrupt):
                self._console.print()
                return answered
            if line in ("/quit", "/exit"):
                return answered
            if line.startswith("/"):
                self._obey(line)
            elif line:
                answered = self._answer(line)

    def _obey(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        match command:
            case "/file" if argument:
                self._files.append(Path(argument.strip()).expanduser())
            case "/clear":
                self._client.forget()
                self._files.clear()
            case _:
                self._console.print(HELP, highlight=False)

    def _answer(self, question: str) -> bool:
        files, self._files = self._files, []
        try:
            with suppress(KeyboardInterrupt):
                asyncio.run(self._show(question, files))
        except ChatFailed as error:
            typer.echo(f"Error: {error}", err=True)
            return False
        return True

    async def _show(self, question: str, files: list[Path]) -> None:
        if not self._console.is_terminal:
            async for piece in self._client.ask(question, files):
                if not piece.reasoning:
                    typer.echo(piece.text, nl=False)
            typer.echo()
            return
        reasoning, answer = "", ""
        with Live(console=self._console, refresh_per_second=FRAMES_PER_SECOND, vertical_overflow="visible") as live:
            async for piece in self._client.ask(question, files):
                if piece.reasoning:
                    reasoning += piece.text
                else:
                    answer += piece.text
                live.update(_shown(reasoning, answer))


def _shown(reasoning: str, answer: str) -> RenderableType:
    thought = [Text(reasoning.strip(), style="dim italic")] if reasoning.strip() else []
    return Group(*thought, Markdown(answer))
