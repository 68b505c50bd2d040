"""Ids of requests and answers, which name them and protect nothing."""

from __future__ import annotations

import random

_random = random.Random(random.SystemRandom().getrandbits(256))  # noqa: S311 - reads the system's randomness once
"""A read of the system's randomness for each id would be a system call."""


def new_id(prefix: str, digits: int) -> str:
    """Return an id of ``digits`` random hexadecimal digits behind ``prefix``."""
    return f"{prefix}{_random.getrandbits(4 * digits):0{digits}x}"
