"""What the system allows and shows: open files, processors, CPU time and memory of a process with its children."""

from __future__ import annotations

import os
import resource
import sys
import time

import psutil


def allow_many_connections() -> None:
    """Raise the limit of open files to what is permitted without privileges."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def processors() -> tuple[set[int], set[int]]:
    """The processors that only the target uses, and those for all else; two empty sets where that cannot be had."""
    if sys.platform != "linux":
        return set(), set()
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        return set(), set()
    target = {max(usable)}
    return target, usable - target


def pin(pid: int, processors: set[int]) -> None:
    """Keep a process on these processors, if any; what it starts later stays there too."""
    if sys.platform == "linux" and processors:
        os.sched_setaffinity(pid, processors)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and its children have used so far.

    On Linux it is read from the process's CPU clock, whose id is made of the pid (`clock_getcpuclockid`): it counts
    nanoseconds, where /proc/PID/stat counts hundredths of a second.
    """
    return sum(_cpu_of(process) for process in _family(pid))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its children; what they share is counted for each."""
    return sum(process.memory_info().rss for process in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _cpu_of(process: psutil.Process) -> float:
    if sys.platform != "linux":
        times = process.cpu_times()
        return times.user + times.system
    return time.clock_gettime((~process.pid << 3) | 2)
