"""Start a real S3 server and a real IPFS node as local processes."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from obstore.store import S3Store

ACCESS_KEY = "tests"
SECRET_KEY = "only-for-tests"


def free_ports(count: int) -> list[int]:
    """Return distinct ports below the range for outgoing connections, one of which could take a port meanwhile."""
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            one = stack.enter_context(socket.socket())
            port = random.randrange(20_000, 32_768)
            with suppress(OSError):
                one.bind(("127.0.0.1", port))  # bound until all are chosen
                ports.append(port)
    return ports


class S3Server:
    """SeaweedFS with its S3 gateway, which checks signatures, and the bucket ``pictures``."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._ports = free_ports(8)
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"

    def url(self, prefix: str, *, secret_key: str = SECRET_KEY, **options: str) -> str:
        """Return a value for PICTURE_STORE."""
        parameters = {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": secret_key,
            **options,
        }
        return f"s3://pictures/{prefix}?" + "&".join(f"{name}={value}" for name, value in parameters.items())

    def __enter__(self) -> Self:
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = {"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]}
        (self._directory / "s3.json").write_text(json.dumps(identities))
        self._process = subprocess.Popen(
            [self._program, "-logtostderr=true", "server", *self._flags()],
            cwd=self._directory,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "Start Seaweed S3 API Server" in line:
                break
        else:
            raise AssertionError("the S3 server did not start")
        # Drain stderr: a full pipe would block the server.
        self._reader = subprocess.Popen(["cat"], stdin=self._process.stderr, stdout=subprocess.DEVNULL)
        self._process.stderr.close()
        bucket = S3Store(
            "pictures",
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
        )
        bucket.put("created", b"")  # the first object creates the bucket
        return self

    def _flags(self) -> list[str]:
        names = ["s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc"]
        ports = [
            f"-{kind}.port{'.' + grpc if grpc else ''}={port}"
            for name, port in zip(names, self._ports, strict=True)
            for kind, _, grpc in [name.partition(".")]
        ]
        here = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self._directory}"]
        off = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-master.telemetry=false"]
        small = ["-volume.max=10", "-master.volumeSizeLimitMB=64", "-master.electionTimeout=1s"]
        return [*here, *ports, *off, *small, "-s3", "-s3.config=s3.json"]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.wait()


class IpfsNode:
    """js-ipfs, with Kubo's RPC API and a gateway, talking to no other node. ``kill`` and ``start`` may alternate."""

    def __init__(self, node: Path, folder: Path, repository: Path) -> None:
        self._node = node
        self._folder = folder
        self._repository = repository
        self._rpc_port, self._gateway_port = free_ports(2)
        self._starts = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def rpc(self) -> str:
        return f"http://127.0.0.1:{self._rpc_port}"

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self._gateway_port}"

    def start(self) -> None:
        """Start on the same ports each time, in a new repository: js-ipfs leaves its lock behind when it is killed."""
        self._starts += 1
        repository = self._repository / str(self._starts)
        ports = [str(self._rpc_port), str(self._gateway_port)]
        self._process = subprocess.Popen(
            [self._node, "node.mjs", repository, *ports],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(self._repository)},
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the IPFS node did not start"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
