"""Writes the generated docs: the tables of ``docs/settings.md``, ``.env.example``, ``docs/reference.md`` and the plots.

The text about settings comes from ``openai_dify_proxy.settings.model``. In ``docs/settings.md`` a table stands between
two comments, ``<!-- settings: NAME -->`` and ``<!-- end -->``, where NAME is a class of that module; everything else
there is written by hand.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from openai_dify_proxy.settings import model
from openai_dify_proxy.settings.descriptions import (
    Model,
    default,
    described_fields,
    details,
    shown,
    shown_default,
    summary,
    type_name,
)
from openai_dify_proxy.settings.model import SECTIONS
from scripts.plots import plots
from scripts.reference_docs import reference_page

ROOT = Path(__file__).parents[1]
WIDTH = 120
ENV_HEADER = """\
# Copy this file to .env in the directory where the server starts, and remove the # before each setting that you change.
# Lines show the defaults; DIFY_API_URL shows Dify Cloud. docs/settings.md has the details.
"""

_TABLE = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings_page(page: str) -> str:
    """Return ``docs/settings.md`` with its tables replaced."""
    return _TABLE.sub(lambda match: f"{match[1]}{_table(getattr(model, match[2]))}{match[3]}", page)


def _table(section: Model) -> str:
    variables = section in SECTIONS
    lines = [f"| {'Setting' if variables else 'Key'} | Type | Default | Description |", "|---|---|---|---|"]
    for name, field in described_fields(section).items():
        if name != "name":
            shown_name = name.upper() if variables else name
            cells = (f"`{shown_name}`", type_name(field), shown_default(field), details(field))
            lines.append(f"| {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def env_example() -> str:
    """Return the content of ``.env.example``."""
    return "\n".join([ENV_HEADER, *map(_env_section, SECTIONS)])


def _env_section(section: Model) -> str:
    heading = f"# --- {section.__doc__} "
    lines = [heading.ljust(WIDTH, "-")]
    for name, field in described_fields(section).items():
        lines += textwrap.wrap(
            summary(field), WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        lines.append(f"#{name.upper()}={shown(field).example or default(field) or ''}")
    return "".join(f"{line}\n" for line in lines)


def generated() -> dict[Path, str]:
    """Return the generated files with their content."""
    page = ROOT / "docs" / "settings.md"
    return {
        page: settings_page(page.read_text(encoding="utf-8")),
        ROOT / ".env.example": env_example(),
        ROOT / "docs" / "reference.md": reference_page(),
        **plots(),
    }


def main() -> int:
    """Write the files, or with ``--check`` report those that differ. Return the exit code."""
    if sys.argv[1:] not in ([], ["--check"]):
        sys.stderr.write("Usage: scripts/docs [--check | serve | build]\n")
        return 2
    stale = [
        path for path, text in generated().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} differs from the code: run scripts/docs\n")
        return 1 if stale else 0
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
