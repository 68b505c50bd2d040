"""The results of ``check``, printed as they arrive or as one JSON document."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer

from openai_dify_proxy.cli.output import print_findings, print_json
from openai_dify_proxy.translate.dify.app_findings import Finding


class CheckOutput:
    """Prints each result at once, or collects them for ``finish``."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._tables: dict[str, list[dict[str, Any]]] = {"apps": [], "image_models": []}
        self._parts: list[dict[str, Any]] = []

    def remark(self, text: str) -> None:
        """Print a line that is not a result. JSON omits it."""
        if not self._as_json:
            typer.echo(text)

    def part(self, subject: str, problem: str | None, success: str) -> bool:
        """Report a part of the server, and return whether it works: there is no ``problem``."""
        if self._as_json:
            self._parts.append({"part": subject, "works": problem is None, "text": problem or success})
        elif problem is None:
            typer.echo(f"{subject}: {success}")
        else:
            print_findings([(subject, Finding("problem", problem))])
        return problem is None

    def table(self, name: str, rows: Iterable[dict[str, Any]], show: Callable[[], None]) -> None:
        """Report the ``rows`` of the list ``name`` in JSON, which ``show`` prints as a table."""
        if self._as_json:
            self._tables[name] += rows
        else:
            show()

    def finish(self, works: bool) -> None:
        """Print the JSON document, if it is wanted."""
        if self._as_json:
            print_json({"works": works, **self._tables, "parts": self._parts})


def findings_as_json(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [{"kind": finding.kind, "text": finding.text} for finding in findings]
