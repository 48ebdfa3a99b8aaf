"""Style and types of the code: ruff and pyright find nothing, and files are short.

The settings of both are in pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.provision import CACHE, REPO

FOLDERS = ("benchmarks", "lens_models", "nodes", "tests", "tools", "training", "web")
MOST_LINES = 400


def check(tool: str, *arguments: object) -> None:
    """Run a tool of the project environment; fail with its output."""
    command = [sys.executable, "-m", tool, *map(str, arguments)]
    run = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, f"{tool} {' '.join(map(str, arguments))}\n{run.stdout}{run.stderr}"


def test_ruff_has_no_complaint():
    check("ruff", "check", ".")


def test_every_file_is_formatted():
    check("ruff", "format", "--check", ".")


@pytest.mark.slow
def test_pyright_has_no_complaint():
    check("pyright", "--venvpath", CACHE)


def test_no_file_is_long():
    files = [
        path
        for folder in FOLDERS
        for end in ("py", "js", "mjs")
        for path in (REPO / folder).rglob(f"*.{end}")
    ]
    lines = {path.relative_to(REPO).as_posix(): path.read_text("utf-8").count("\n") for path in files}
    assert len(lines) > 300, "the walk finds the files"
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize(("folder", "most"), [("lens_models", 16), ("nodes", 1), ("training", 6)])
def test_modules_lie_in_folders(folder, most):
    """A module of a step of the picture, of a category of the menu, of a part of a run has its folder."""
    assert len(list((REPO / folder).glob("*.py"))) <= most
