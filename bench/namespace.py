"""A separate network namespace: servers that listen on all interfaces are then reachable from this run only."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys

_MARK = "BENCH_IN_NAMESPACE"
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


class NoNamespace(Exception):
    """The system cannot make a network namespace; the message says why."""


def enter() -> None:
    """Restart this program in a network namespace with only a loopback interface, unless it is in one already.

    Raises NoNamespace. Needs Linux, and either root or user namespaces without privileges.
    """
    if sys.platform != "linux":
        raise NoNamespace("network namespaces need Linux")
    if os.environ.get(_MARK):
        _start_loopback()
        return
    unshare = shutil.which("unshare")
    if unshare is None:
        raise NoNamespace("the program 'unshare' is not installed")
    # Root needs no user namespace, in which nginx could not change its user.
    command = [unshare, "--net"] if os.geteuid() == 0 else [unshare, "--map-root-user", "--net"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise NoNamespace(tried.stderr.strip())
    program = [sys.executable, "-m", "bench", *sys.argv[1:]]
    os.execve(unshare, [*command, *program], {**os.environ, _MARK: "1"})


def _start_loopback() -> None:
    import fcntl  # noqa: PLC0415 - does not exist on Windows

    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
