"""What all models of settings have in common."""

from __future__ import annotations

from pydantic import ConfigDict

CONFIG = ConfigDict(
    frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=False
)
"""Models are frozen, accept no unknown fields, and take the descriptions of fields from their docstrings."""
