"""Style and types of the code: ruff and pyright find nothing. Their settings are in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.provision import CACHE, REPO


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
