"""A ComfyUI of its own in which a toy SDXL stands for the real one, under the public files' names."""

from __future__ import annotations

import contextlib
from pathlib import Path

from . import provision
from .server import ComfyHost

PACK = Path(__file__).with_name("toy_sdxl.py")
#: Side of a toy's picture, px: the templates' 1024 only cost time with random weights.
SIDE_PX = 128


@contextlib.contextmanager
def toy_host(base: Path):
    """The running server; `base` is its folder, which must be empty."""
    nodes = base / "custom_nodes"
    nodes.mkdir(parents=True)
    (nodes / PACK.name).symlink_to(PACK)
    with ComfyHost(provision.host(), base) as server:
        yield server


def small(workflow: dict) -> dict:
    """A template whose picture is a toy's size."""
    for node in workflow["nodes"]:
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = [SIDE_PX, SIDE_PX]
    return workflow
