"""The tiny SDXL of tests/fixtures/dmd2 in ComfyUI's terms; imported by what the host's Python runs."""

from __future__ import annotations

from pathlib import Path

from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep
from torch.nn import GroupNorm

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "dmd2"
NETWORK = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 2], "transformer_depth": [0, 1, 1], "transformer_depth_output": [0, 0, 1, 1, 1, 1],
    "transformer_depth_middle": 1, "num_head_channels": 32, "context_dim": 32, "adm_in_channels": 128,
    "num_classes": "sequential", "use_spatial_transformer": True, "use_linear_in_transformer": True,
    "use_temporal_attention": False, "legacy": False,
}  # fmt: skip
#: Of a control network of the same sizes.
CONTROL_NETWORK = {k: v for k, v in NETWORK.items() if k not in ("out_channels", "transformer_depth_output")}


def as_in_the_fixture(model):
    """The fixture's network has groups of its own size and a shorter embedding of picture sizes."""
    model.embedder = Timestep(16)
    for module in model.diffusion_model.modules():
        if isinstance(module, GroupNorm):
            module.num_groups = 16
    return model
