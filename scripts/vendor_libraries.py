"""Renew the JavaScript libraries of the console and the docs site from the npm registry.

``vendor.json`` in each folder lists its files with package, version, licence and checksum. Without arguments, every
package is downloaded, its files are copied unchanged, and the checksums are written. ``--check`` compares the files
with the checksums, without a network.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = (ROOT / "src/openai_dify_proxy/console/static/vendor", ROOT / "docs/assets/vendor")
MANIFEST = "vendor.json"
REGISTRY = "https://registry.npmjs.org"
SECONDS = 60


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        return _check()
    for folder in FOLDERS:
        libraries = json.loads((folder / MANIFEST).read_text())
        for library in libraries:
            _renew(library, folder)
        (folder / MANIFEST).write_text(json.dumps(libraries, indent=2) + "\n")
    return 0


def _check() -> int:
    changed = [
        name
        for folder in FOLDERS
        for library in json.loads((folder / MANIFEST).read_text())
        for name, file in library["files"].items()
        if _checksum((folder / name).read_bytes()) != file["sha256"]
    ]
    for name in changed:
        sys.stderr.write(f"{name} differs from vendor.json. Run scripts/vendor.\n")
    return 1 if changed else 0


def _renew(library: dict[str, object], folder: Path) -> None:
    package, version = library["package"], library["version"]
    url = f"{REGISTRY}/{package}/-/{package}-{version}.tgz"
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - the address of a registry
        archive = answer.read()
    files = library["files"]
    assert isinstance(files, dict)
    with tarfile.open(fileobj=io.BytesIO(archive)) as package_files:
        for name, file in files.items():
            member = package_files.extractfile(f"package/{file['source']}")
            assert member is not None
            data = member.read()
            (folder / name).write_bytes(data)
            file["sha256"] = _checksum(data)
            sys.stdout.write(f"{name}: {package} {version}, {len(data)} bytes\n")


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
