"""A Markdown extension: links from ``docs/`` to other files of the repository also work in the site."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor


class OutsideLinks(Treeprocessor):
    """Point links that leave ``docs/`` to the repository."""

    def __init__(self, md: Markdown, repository: str) -> None:
        super().__init__(md)
        self._repository = repository

    def run(self, root: Element) -> None:
        """Replace the leading ``../`` of each link by the address of the repository."""
        for link in root.iter("a"):
            target = link.get("href", "")
            if target.startswith("../"):
                link.set("href", self._repository + target.removeprefix("../"))


class SiteLinks(Extension):
    """Options: ``repository``, the address that links to files outside ``docs/`` begin with."""

    def __init__(self, **options: Any) -> None:
        self.config = {"repository": ["", "the address of the repository's files, with a slash at the end"]}
        super().__init__(**options)

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - the name is Markdown's
        """Register the processor, after links were read."""
        md.treeprocessors.register(OutsideLinks(md, self.getConfig("repository")), "outside_links", 1)


def makeExtension(**options: Any) -> SiteLinks:  # noqa: N802 - the name is Markdown's
    """Return the extension; Markdown calls this."""
    return SiteLinks(**options)
