"""Limits and accounting of the system: open files, processors, CPU time and memory of a process and its children."""

from __future__ import annotations

import os
import resource
import sys
import time

import psutil


def allow_many_connections() -> None:
    """Raise the limit of open files to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def processors() -> tuple[set[int], set[int]]:
    """Return the processor for the target and those for all else; two empty sets if they cannot be separated."""
    if sys.platform != "linux":
        return set(), set()
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        return set(), set()
    target = {max(usable)}
    return target, usable - target


def pin(pid: int, processors: set[int]) -> None:
    """Restrict a process and its later children to these processors; do nothing for an empty set."""
    if sys.platform == "linux" and processors:
        os.sched_setaffinity(pid, processors)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children so far.

    On Linux it comes from the process's CPU clock, whose id is derived from the pid (`clock_getcpuclockid`). That clock
    counts nanoseconds; /proc/PID/stat counts hundredths of a second.
    """
    return sum(_cpu_of(process) for process in _family(pid))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children; shared pages count in each."""
    return sum(process.memory_info().rss for process in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _cpu_of(process: psutil.Process) -> float:
    if sys.platform != "linux":
        times = process.cpu_times()
        return times.user + times.system
    return time.clock_gettime((~process.pid << 3) | 2)
