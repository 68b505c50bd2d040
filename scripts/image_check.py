"""Run the steps of the Dockerfile in a clean Debian root; see ``scripts/image-check``.

The base image is Debian's release with the same Python, made by debootstrap, instead of ``python:…-slim``. Each stage
gets a copy of it. The result must serve with the image's entry point, user, environment and health check, on a root
that is mounted read-only, and must contain neither a compiler nor an installer.
"""

# ruff: noqa: S603 - it runs the steps of our own Dockerfile

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
MIRROR = "http://deb.debian.org/debian"
RELEASE = "trixie"
"""The release whose Python is that of the image, 3.13."""

PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SURROUNDINGS = {
    "HOME": "/root",
    "PIP_BREAK_SYSTEM_PACKAGES": "1",  # Debian's pip asks for it, that of the image does not
    "PIP_CERT": str(CERTIFICATES),
    "SSL_CERT_FILE": str(CERTIFICATES),
}
FORBIDDEN = ("gcc", "cc", "uv", "make")
REMOVE_PIP = "dpkg --purge --force-depends python3-pip"
START_SECONDS = 60


class Instruction(NamedTuple):
    name: str
    text: str


def instructions() -> list[Instruction]:
    """Return the instructions of the Dockerfile, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [Instruction(*line.split(None, 1)) for line in lines if line.strip()]


class Stage:
    """A root, and the environment of its commands."""

    def __init__(self, base: Path, root: Path) -> None:
        run("cp", "--archive", base, root)
        self.root = root
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **SURROUNDINGS}
        self.directory = "/"
        self.user = "0:0"
        self.settings: dict[str, str] = {}

    def obey(self, instruction: Instruction, stages: dict[str, Stage]) -> None:
        match instruction:
            case Instruction("ENV", text):
                values = dict(word.split("=", 1) for word in shlex.split(text))
                path = self.environment["PATH"]
                self.environment |= {name: value.replace("$PATH", path) for name, value in values.items()}
            case Instruction("WORKDIR", text):
                self.directory = text
                (self.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case Instruction("COPY", text):
                self._copy(text, stages)
            case Instruction("RUN", text):
                say(f"RUN {text}")
                self.run("/bin/sh", "-c", text.replace("pip uninstall --yes --quiet pip", REMOVE_PIP))
            case Instruction("USER", text):
                self.user = text
            case Instruction(name, text):
                self.settings[name] = text

    def _copy(self, text: str, stages: dict[str, Stage]) -> None:
        *names, target = text.split()
        source = stages[names.pop(0).removeprefix("--from=")].root if names[0].startswith("--from=") else ROOT
        place = self.root / str(Path(self.directory, target)).lstrip("/")
        for name in names:
            original = source / name.lstrip("/")
            into = place if len(names) == 1 and not target.endswith("./") else place / original.name
            if original.is_dir():
                shutil.copytree(original, into, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".venv"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(original, into)

    def command(self, *words: str) -> list[str]:
        """Return the command line that runs ``words`` in this root, as its user."""
        values = [f"{name}={value}" for name, value in self.environment.items()]
        inside = ["chroot", f"--userspec={self.user}", str(self.root), "/usr/bin/env", "-i", *values]
        return [*inside, "/bin/sh", "-c", f'cd {self.directory} && exec "$@"', "sh", *words]

    def run(self, *words: str) -> None:
        subprocess.run(self.command(*words), check=True)


def run(*words: str | Path) -> None:
    subprocess.run(words, check=True)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def make_base(root: Path) -> None:
    """Make the base image: a minimal Debian with Python, and with the certificates of this machine."""
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, root, MIRROR)
    (root / "usr/bin/python").symlink_to("python3")
    shutil.copy(CERTIFICATES, root / "etc/ssl/certs")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")


def check_contents(stage: Stage) -> None:
    """Fail if the result can build or install anything."""
    folders = [stage.root / "usr/bin", stage.root / "usr/local/bin"]
    found = [name for name in FORBIDDEN if any((folder / name).exists() for folder in folders)]
    if found:
        sys.exit(f"The image contains {', '.join(found)}.")


def check_service(stage: Stage) -> None:
    """Serve on a read-only root until the health check passes, and end the server with SIGTERM."""
    run("mount", "--bind", stage.root, stage.root)
    run("mount", "--bind", "--make-private", stage.root / "data", stage.root / "data")
    run("mount", "-t", "tmpfs", "tmpfs", stage.root / "tmp")
    run("mount", "--rbind", "/dev", stage.root / "dev")
    run("mount", "-t", "proc", "proc", stage.root / "proc")
    run("mount", "-o", "remount,ro,bind", stage.root)
    stage.environment |= {"DIFY_API_URL": "http://127.0.0.1:9", "API_KEYS": "a-key-of-this-check", "HOST": "127.0.0.1"}
    words = [*json.loads(stage.settings["ENTRYPOINT"]), *json.loads(stage.settings["CMD"])]
    probe = json.loads(stage.settings["HEALTHCHECK"].partition("CMD ")[2])
    with subprocess.Popen(stage.command(*words)) as server:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(stage.command(*probe), check=False, stderr=subprocess.DEVNULL).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                sys.exit("The server did not become healthy.")
            time.sleep(0.5)
        server.terminate()
        if server.wait(START_SECONDS):
            sys.exit(f"The server ended with code {server.returncode}.")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        base = Path(folder) / "base"
        make_base(base)
        stages: dict[str, Stage] = {}
        current = None
        for instruction in instructions():
            if instruction.name == "FROM":
                name = instruction.text.partition(" AS ")[2] or "result"
                current = stages[name] = Stage(base, Path(folder) / name)
            else:
                assert current is not None
                current.obey(instruction, stages)
        check_contents(stages["result"])
        check_service(stages["result"])
        run("umount", "--recursive", stages["result"].root)
    say("The steps of the image work: it serves without root, on a read-only root.")


if __name__ == "__main__":
    main()
