"""Optional parts of the distribution, its extras."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[3]
"""The root of the checkout, if the package runs from one."""


def install_command(extra: str, root: Path = _ROOT) -> str:
    """Return the command that installs an extra: the set-up script if ``root`` is a checkout, else pip."""
    if all((root / name).is_file() for name in ("pyproject.toml", "scripts/setup")):
        return f"scripts/setup --extra {extra}"
    return f"pip install 'openai-dify-proxy[{extra}]'"
