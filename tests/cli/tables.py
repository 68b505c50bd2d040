"""Reads the output of the commands."""

from __future__ import annotations


def rows(shown: str) -> list[list[str]]:
    """Return the lines of all tables, cell by cell."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if "│" in line]


def row(shown: str, name: str) -> list[str]:
    """Return the first line of the row that begins with ``name``."""
    return next(cells for cells in rows(shown) if cells[0] == name)


def findings(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith(("problem ", "note "))]
