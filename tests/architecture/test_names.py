"""A class has one name, and a name means one class."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import openai_dify_proxy

PACKAGE = Path(openai_dify_proxy.__file__).parent


def test_no_two_classes_share_a_name() -> None:
    classes: dict[str, list[str]] = defaultdict(list)
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{module.relative_to(PACKAGE)}:{node.lineno}")
    assert len(classes) > 100
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}
