"""The pages of the training that need gradio, served by the environment that has it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools import provision

SCREENSHOTS = provision.REPO / "output" / "screenshots"


@contextmanager
def served(command: Sequence[str | Path], log: Path) -> Iterator[str]:
    """`python -m training COMMAND` while it answers: its address. Its log must have no traceback."""
    try:
        python = provision.study()
    except provision.ProvisionError as error:
        pytest.fail(str(error), pytrace=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(log, "w") as out:
        server = subprocess.Popen(
            [python, "-m", "training", *command, "--port", str(port)],
            cwd=provision.REPO, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + 40
        while True:
            assert server.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(10)
    assert "Traceback" not in log.read_text()


def shot(name: str) -> Path:
    """Where a screenshot goes."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS / f"{name}.png"
