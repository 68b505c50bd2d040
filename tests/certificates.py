"""Certificates for local TLS servers."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests import parts

LOCAL = "IP:127.0.0.1,DNS:localhost"
FOREVER = "21200101000000Z"

_CONFIG = """\
[ca]
default_ca = local
[local]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = policy
x509_extensions = extensions
[policy]
commonName = supplied
[extensions]
basicConstraints = critical, CA:FALSE
subjectAltName = {names}
"""


class Certificate(NamedTuple):
    """The files of a self-signed certificate and its key."""

    file: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.file, self.key)
        return context


def make_certificate(
    directory: Path, *, names: str = LOCAL, begin: str = "20200101000000Z", end: str = FOREVER
) -> Certificate:
    """Make a certificate in the empty ``directory``. Times are ASN.1 times, as ``openssl ca`` takes them."""
    program = parts.component("openssl", shutil.which("openssl"))
    (directory / "ca.cnf").write_text(_CONFIG.format(names=names))
    (directory / "index.txt").touch()
    (directory / "serial").write_text("01\n")

    def openssl(*arguments: str) -> None:
        subprocess.run([program, *arguments], cwd=directory, check=True, capture_output=True)

    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem")
    openssl("req", "-new", "-key", "key.pem", "-subj", "/CN=test", "-out", "request.pem")
    openssl(
        *("ca", "-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", "key.pem", "-in", "request.pem"),
        *("-startdate", begin, "-enddate", end, "-notext", "-out", "certificate.pem"),
    )
    return Certificate(directory / "certificate.pem", directory / "key.pem")
