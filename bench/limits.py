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


def processors() -> tuple[set[int], set[int]] | None:
    """Which processors the target has to itself, and which are for all else; None where they cannot be told apart."""
    if sys.platform != "linux":
        return None
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        return None
    target = {max(usable)}
    return target, usable - target


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
