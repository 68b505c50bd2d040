"""The files of one run in Dify's format: events, file objects and links in the text."""

from __future__ import annotations

import asyncio
from typing import Any

from openai_dify_proxy_demo.drawing import draw
from openai_dify_proxy_demo.events import file_object
from openai_dify_proxy_demo.file_store import FileStore, MadeFile
from openai_dify_proxy_demo.runs import Run, new_id


class OutputFiles:
    """Makes and describes the files of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.store: FileStore = run.files

    async def draw(self, all_words: tuple[tuple[str, ...], ...]) -> list[MadeFile]:
        """Make a file for each tuple of words. The question is the caption, and the input `size` the size."""
        question, size = self.run.question, self.run.inputs.get("size")
        return [
            self.store.add(await asyncio.to_thread(draw, words, question, self.store.next_seed(question), size))
            for words in all_words
        ]

    def link(self, made: MadeFile, extension: str | None = None) -> str:
        """Return a link. Dify signs it anew each time."""
        return self.store.link(made, self.run.files_url, extension)

    def markdown(self, made: MadeFile, label: str | None = None) -> str:
        """Return a link in Markdown, by default with the file's name."""
        text = made.name if label is None else label
        return f"{'!' if made.kind == 'image' else ''}[{text}]({self.link(made)})"

    def item(self, made: MadeFile) -> dict[str, Any]:
        """Return the file object that chatflows and workflows list in `files`."""
        return file_object(made, self.link(made), dialect=self.run.dialect)

    def message_file(self, made: MadeFile) -> dict[str, Any]:
        """Return the event of chat, completion and agent apps. Its link ends in `.bin` for every kind of file."""
        url = self.link(made, ".bin")
        return self.run.envelope.chat("message_file", id=new_id(), type=made.kind, belongs_to="assistant", url=url)

    def end_item(self, event: dict[str, Any], made: MadeFile) -> dict[str, Any]:
        """Return the entry of `files` in the `message_end` of chat apps, which knows neither type nor size."""
        return {
            "related_id": event["id"],
            "extension": ".bin",
            "filename": made.id,
            "size": 0,
            "mime_type": "application/octet-stream",
            "transfer_method": "tool_file",
            "type": made.kind,
            "url": self.link(made, ".bin"),
            "upload_file_id": made.id,
            "remote_url": "",
        }


class GraphFiles:
    """The files of a chatflow's or workflow's nodes."""

    def __init__(self, run: Run) -> None:
        self._output = OutputFiles(run)
        self._chatflow = run.app.mode == "advanced-chat"
        self.drawn: list[MadeFile] = []
        """The files of the model's node."""
        self.made: list[MadeFile] = []
        """The files of a tool's node."""

    async def draw(self) -> list[str]:
        """Let the model make its files, and return their links within its text."""
        self.drawn = await self._output.draw(self._output.run.script.drawn)
        return [self._output.markdown(made, "") for made in self.drawn]

    async def make(self) -> None:
        """Let the tool make its files."""
        self.made = await self._output.draw(self._output.run.script.made)

    @property
    def drawn_links(self) -> str:
        """The variable `llm.files` as text, which follows the model's text in a chatflow."""
        return self._links(self.drawn)

    @property
    def made_links(self) -> str:
        """The variable `draw.files` as text."""
        return self._links(self.made)

    def items(self, files: list[MadeFile]) -> list[dict[str, Any]]:
        """Return file objects with links that are signed anew."""
        return [self._output.item(made) for made in files]

    def listed(self) -> list[dict[str, Any]]:
        """Return the files that the run's end lists. A workflow's omit those of the model."""
        return self.items([*self.drawn, *self.made] if self._chatflow else self.made)

    def message_end(self) -> list[dict[str, Any]]:
        """Return the files of `message_end`: the model's twice, as they are in its text and in its files."""
        return self.items([*self.drawn, *self.drawn, *self.made])

    def _links(self, files: list[MadeFile]) -> str:
        return "\n".join(self._output.markdown(made) for made in files) if self._chatflow else ""
