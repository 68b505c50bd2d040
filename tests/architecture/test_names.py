"""Every class name in the package is unique."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import openai_dify_proxy

PACKAGE = Path(openai_dify_proxy.__file__).parent


def test_class_names_are_unique() -> None:
    classes: dict[str, list[str]] = defaultdict(list)
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{module.relative_to(PACKAGE)}:{node.lineno}")
    assert len(classes) > 100
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}
