"""Replaces Dify's links to files, in the text of an answer and in its files.

Text arrives in pieces that may cut a link anywhere. The rewriter holds back only what may still become a link of Dify:
a scheme, a host until it is complete, and the characters of a link itself. Of a text without a slash it looks at
nothing but its end. The result does not depend on how the text is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import json, structs

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.events import (
    Event,
    FileProduced,
    FixedTextDelta,
    ReasoningDelta,
    StepChanged,
    TextDelta,
    TextReplaced,
    TurnFinished,
)
from openai_dify_proxy.translate.dify.signed_links import SignedLink, SignedLinks

Replace = Callable[[SignedLink, FileProduced | None], str | None]
"""Returns the link that replaces one of Dify, or None to leave it. The file is that of ``FileProduced``, if known."""

_ENDS = ("h", "ht", "htt", "http", "https", "http:", "https:")
"""What may begin a link at the end of a text without a slash."""


class LinkRewriter(Entity):
    """Rewrites one text, piece by piece. The replaced links are of no known file."""

    links: SignedLinks
    replace: Replace
    _held: str = ""
    _before: str = ""  # a text that ends with the character before the next one

    def feed(self, text: str) -> str:
        """Return the text that is certain by now."""
        return self._rewrite(self._held + text, ended=False)

    def finish(self) -> str:
        """Return the rest: no more text follows."""
        return self._rewrite(self._held, ended=True) if self._held else ""

    def _rewrite(self, text: str, *, ended: bool) -> str:
        out: list[str] = []
        self._held = ""
        done = position = 0
        while (start := self.links.start.search(text, position)) is not None:
            at = start.start()
            found = self.links.match(text, at, text[at - 1] if at else self._before[-1:], ended=ended)
            if isinstance(found, SignedLink):
                link = self.replace(found, None)
                if link is not None:
                    out += (text[done:at], link)
                    done = found.end
                position = found.end
            elif found == "unfinished":
                self._held = text[at:]
                text = text[:at]
                break
            else:
                position = at + 1
        self._before = text or self._before
        out.append(text[done:])
        return "".join(out)


class FileLinks(LinkRewriter):
    """Rewrites the events of one turn. ``replace`` returns the same link for every link to the same file."""

    _fixed: bool = False  # whether the held text is of ``FixedTextDelta``

    def filter(self, events: list[Event]) -> list[Event]:
        """Return the events with links of ours; text that may be a part of a link follows later."""
        for event in events:
            if type(event) is TextDelta:
                text = event.text
                if self._held or "/" in text or text.endswith(_ENDS):
                    break
                self._before = text or self._before
            elif type(event) is not TurnFinished or self._held or event.answer is not None or event.outputs is not None:
                break
        else:
            return events  # the usual case
        out: list[Event] = []
        for event in events:
            self._filter(event, out)
        return out

    def _filter(self, event: Event, out: list[Event]) -> None:
        match event:
            case TextDelta(text):
                self._feed(text, type(event) is FixedTextDelta, out)
            case TextReplaced(text, moderated):
                self._held = self._before = ""
                out.append(TextReplaced(self.feed(text), moderated))
            case ReasoningDelta() | StepChanged():
                out.append(event)
            case FileProduced():
                self._flush(out)
                out.append(self._file(event))
            case TurnFinished():
                self._flush(out)
                out.append(self._finished(event))
            case _:
                self._flush(out)
                out.append(event)

    def _feed(self, text: str, fixed: bool, out: list[Event]) -> None:
        if fixed is not self._fixed:
            self._flush(out)
            self._fixed = fixed
        if new := self.feed(text):
            out.append(FixedTextDelta(new) if fixed else TextDelta(new))

    def _flush(self, out: list[Event]) -> None:
        if rest := self.finish():
            out.append(FixedTextDelta(rest) if self._fixed else TextDelta(rest))

    def _file(self, file: FileProduced) -> FileProduced:
        found = self.links.match(file.url, 0, "", ended=True) if file.url else "no"
        if not isinstance(found, SignedLink) or found.end != len(file.url):
            return file
        link = self.replace(found, file)
        return file if link is None else structs.replace(file, url=link)

    def _finished(self, event: TurnFinished) -> TurnFinished:
        answer = None if event.answer is None else self._whole(event.answer)
        outputs = None if event.outputs is None else self._rewritten(event.outputs)
        return structs.replace(event, answer=answer, outputs=outputs)

    def _rewritten(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return a workflow's outputs with links of ours; an address in JSON needs no escapes."""
        text = json.encode(outputs).decode()
        rewritten = self._whole(text)
        return outputs if rewritten == text else json.decode(rewritten, type=dict[str, Any])

    def _whole(self, text: str) -> str:
        rewriter = LinkRewriter(self.links, self.replace)
        return rewriter.feed(text) + rewriter.finish()
