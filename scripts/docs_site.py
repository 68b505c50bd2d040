"""Builds the docs site from ``docs/`` with zensical, for ``scripts/docs build``.

The result needs no server and no other host: fonts are the system's, search has its index in a script, and the one
script that the theme loads from elsewhere is replaced by a copy. Beside each page is its Markdown, and ``llms.txt``
lists the pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = ROOT / ".site"
OFFLINE = "\n[project.plugins.offline]\n"
FOREIGN_SCRIPT = "https://unpkg.com/iframe-worker/shim"
"""Lets search work in pages that are opened from a directory; the offline plugin adds it to each page."""
OWN_SCRIPT = "assets/vendor/iframe-worker.js"
CONFIG = "zensical.toml"

Page = tuple[str, str]
"""The title of an entry of the navigation, and its file or address."""


def build(site: Path) -> None:
    """Write the site to a directory, which is replaced. Raise ``SystemExit`` with zensical's output if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        shutil.copytree(DOCS, project / "docs")
        (project / CONFIG).write_text((ROOT / CONFIG).read_text(encoding="utf-8") + OFFLINE, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "zensical", "build"],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(project / ".site", site)
    for page in site.glob("*.html"):
        page.write_text(page.read_text(encoding="utf-8").replace(FOREIGN_SCRIPT, OWN_SCRIPT), encoding="utf-8")
    for source in DOCS.glob("*.md"):
        shutil.copyfile(source, site / source.name)
    (site / "llms.txt").write_text(llms_txt(), encoding="utf-8")


def llms_txt() -> str:
    """Return ``llms.txt``: the name, the summary, and each page's Markdown with its first sentence, by section."""
    project = tomllib.loads((ROOT / CONFIG).read_text(encoding="utf-8"))["project"]
    lines = [f"# {project['site_name']}", "", f"> {project['site_description']}"]
    for section, pages in sections(project["nav"]):
        lines += ["", f"## {section}", ""]
        lines += [f"- [{title}]({file}): {summary(DOCS / file)}" for title, file in pages if file.endswith(".md")]
    return "".join(f"{line}\n" for line in lines)


def sections(nav: list[dict[str, object]]) -> Iterator[tuple[str, list[Page]]]:
    """Yield the sections of the navigation with their entries; a page without a section is its own."""
    for entry in nav:
        for name, content in entry.items():
            if isinstance(content, list):
                yield name, [(title, file) for page in content for title, file in page.items()]
            else:
                yield name, [(name, str(content))]


def summary(page: Path) -> str:
    """Return the first sentence of a page, without links."""
    paragraphs = page.read_text(encoding="utf-8").split("\n\n")
    first = next(text for text in paragraphs if text[0].isalpha() or (text[0] in "`[*" and not text.startswith("```")))
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(first.split()))
    return re.split(r"(?<=\.)\s", plain, maxsplit=1)[0].rstrip(":")


def main() -> int:
    """Write the site to ``.site``."""
    build(SITE)
    sys.stdout.write(f"Open {SITE / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
