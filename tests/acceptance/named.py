"""Whether a test that a table names is there: `tests/FILE.py::test_name`, or `FILE.test.mjs::title`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


@cache
def defined_in(file: Path) -> frozenset[str]:
    """Names of the tests a file defines; `Class::test_name` for those of a class. Empty without the file."""
    if not file.is_file():
        return frozenset()
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".mjs":
        return frozenset(re.findall(r"^test\('([^']+)'", text, re.MULTILINE))
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            names |= {f"{node.name}::{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
    return frozenset(name for name in names if name.split("::")[-1].startswith("test"))


def missing(ids: Iterable[str]) -> list[str]:
    """Those of the test ids that are not there."""
    split = [(test_id, *test_id.split("::", 1)) for test_id in ids]
    return [test_id for test_id, file, name in split if name not in defined_in(REPO / file)]


@cache
def node_ids() -> frozenset[str]:
    """The ids of all nodes, as their schemas in nodes/ state them."""
    found = set()
    for file in sorted((REPO / "nodes").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "node_id"
                and isinstance(node.value, ast.Constant)
            ):
                found.add(node.value.value)
    return frozenset(found)
