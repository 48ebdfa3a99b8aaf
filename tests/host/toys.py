"""A ComfyUI of its own in which toys stand for the real networks, under the public files' names."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import torch

from lens_models.depth.metric3d.config import Metric3DConfig
from lens_models.depth.metric3d.network import Metric3Dv2
from tools import motorcycle, provision
from tools.server import ComfyHost

PACK = Path(__file__).with_name("toy_sdxl.py")
#: Side of a toy's picture, px: the templates' 1024 only cost time with random weights.
SIDE_PX = 128


@contextlib.contextmanager
def toy_host(base: Path):
    """The running server, with the demo's photo in it; `base` is its folder, which must be empty."""
    nodes = base / "custom_nodes"
    nodes.mkdir(parents=True)
    (nodes / PACK.name).symlink_to(PACK)
    write_depth_weights(base)
    with ComfyHost(provision.host(), base) as server, tempfile.TemporaryDirectory() as folder:
        photo, _ = motorcycle.write(Path(folder))
        server.upload(photo, "motorcycle.png")
        yield server


def write_depth_weights(base: Path) -> None:
    """A tiny untrained Metric3Dv2 under the name of the published file, so that nothing is downloaded."""
    torch.manual_seed(0)
    network = Metric3Dv2(Metric3DConfig(24, 2, 1, "mlp", False, (8, 8), 8, 8, 2))
    folder = base / "models" / "geometry_estimation"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state_dict": network.state_dict()}, folder / "metric_depth_vit_small_800k.pth")


def small(workflow: dict) -> dict:
    """A template whose picture is a toy's size."""
    for node in workflow["nodes"]:
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = [SIDE_PX, SIDE_PX]
    return workflow
