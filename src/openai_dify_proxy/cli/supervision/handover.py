"""The start of the supervisor: ``serve`` replaces itself by ``python -m openai_dify_proxy.cli.supervision HANDOVER``.

The process keeps its number, its sockets and its terminal, and loses the memory that reading the settings took.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple, NoReturn

from openai_dify_proxy.cli.supervision.control import Control
from openai_dify_proxy.cli.supervision.loaded import LoadedSettings, read_loaded
from openai_dify_proxy.cli.supervision.supervisor import SIGNALS, Supervisor


class Supervised(NamedTuple):
    """The data that a supervisor receives. ``metrics`` is the directory of the shared metrics, which it removes at its
    end."""

    sockets: Sequence[socket.socket]
    settings: LoadedSettings
    sources: str
    control: socket.socket | None
    control_path: str
    metrics: str | None


def supervise(parts: Supervised) -> int:
    """Run the workers in this process, until a signal ends them. Return the exit code."""
    control = Control(parts.control, parts.control_path)
    try:
        return Supervisor(parts.sockets, parts.settings, parts.sources, control).run()
    finally:
        control.close()
        if parts.metrics is not None:
            import shutil  # takes memory

            shutil.rmtree(parts.metrics, ignore_errors=True)


def become_supervisor(parts: Supervised) -> NoReturn:
    """Replace this process by one that runs the workers. Signals wait until it handles them."""
    settings = _unnamed_file()
    parts.settings.write(settings)
    listeners = [listener.fileno() for listener in parts.sockets]
    control = None if parts.control is None else parts.control.fileno()
    descriptors = [settings.fileno(), *listeners, *([] if control is None else [control])]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    handover = [settings.fileno(), listeners, control, parts.control_path, parts.metrics, parts.sources]
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a module in the current directory must not replace one of the program.
    command = [sys.executable, "-P", "-m", "openai_dify_proxy.cli.supervision", json.dumps(handover)]
    os.execv(sys.executable, command)  # noqa: S606 - this program


def _unnamed_file() -> BinaryIO:
    """Return a file that no other process can open: in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("settings"), "w+b")  # noqa: PTH123 - the next program closes it
    import tempfile  # takes memory

    return tempfile.TemporaryFile()


def received(handover: str) -> Supervised:
    """Return the data from ``become_supervisor``."""
    settings, listeners, control, control_path, metrics, sources = json.loads(handover)
    for descriptor in (*listeners, *([] if control is None else [control])):
        os.set_inheritable(descriptor, False)
    with open(settings, "rb") as file:  # noqa: PTH123 - a descriptor
        file.seek(0)
        loaded = read_loaded(file.read())
    return Supervised(
        [socket.socket(fileno=descriptor) for descriptor in listeners],
        loaded,
        sources,
        None if control is None else socket.socket(fileno=control),
        control_path,
        metrics,
    )
