"""Ctrl-C: the message to the person who pressed it, and the exit code after a second one."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""The exit code after a second Ctrl-C, as shells have it: 128 and the number of SIGINT."""


def announce_answers(answers: int) -> None:
    """Print that ``answers`` answers are finished before the exit, if there are any."""
    if answers:
        # A terminal has shown ^C in this line.
        start = "\n" if sys.stdout.isatty() else ""
        noun = "answer" if answers == 1 else "answers"
        print(f"{start}finishing {answers} {noun}; press again to stop", flush=True)  # noqa: T201 - for the person
