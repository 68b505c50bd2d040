"""The wording of the instructions about tools: a text with ``{tools}``, ``{format}`` and ``{demand}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

TEMPLATE = """\
You can call these tools. Each is shown as its name and the type of its arguments.

{tools}

{format}

{demand}"""
"""The default of the instructions for tools."""

PLACEHOLDERS = ("tools", "format", "demand")

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}", re.ASCII)


def check_template(template: str) -> None:
    """Raise ``ValueError`` if a template lacks a placeholder or has an unknown one.

    Other braces, such as those of JSON, are text.
    """
    names = _PLACEHOLDER.findall(template)
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    for name in names:
        if name not in PLACEHOLDERS:
            raise ValueError(f"unknown placeholder {{{name}}}; the placeholders are {known}")
    for name in PLACEHOLDERS:
        if names.count(name) != 1:
            raise ValueError(f"{{{name}}} must occur once; the placeholders are {known}")


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Return the template with ``values`` for its placeholders."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)
