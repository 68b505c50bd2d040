"""Return of freed memory to the operating system, where the C library is glibc."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

LARGE_BLOCK = 1024 * 1024

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Let every block of ``LARGE_BLOCK`` bytes or more, such as a body, go back to the system as soon as it is freed.

    glibc would raise that size to 32 MB once such a block was freed, and keep smaller ones.
    """
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, 4 * LARGE_BLOCK)


def return_free_memory() -> None:
    """Return all free pages to the system, which takes some ten milliseconds for 200 MB.

    glibc returns only those at the end of its heap, and thousands of connections leave gaps everywhere.
    """
    if (trim := _function("malloc_trim")) is not None:
        trim(0)


def _function(name: str) -> Any:
    """Return a function of glibc, or None: musl has neither."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
