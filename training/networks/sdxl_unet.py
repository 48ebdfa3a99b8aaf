"""The same few steps on a diffusers UNet, for training and evaluation: the numbers are those of ComfyUI.

diffusers is imported when a network is built, not before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lens_models.generator.schedule import FOUR_STEPS, sample_few_steps

LATENT_PX = 8
#: What makes a UNet SDXL's; the rest are the library's defaults.
SDXL_CONFIG: dict[str, Any] = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def build_unet(config: dict[str, Any] | None = None) -> Any:
    """An untrained diffusers UNet; config: its config.json, SDXL's without one."""
    try:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    except ImportError as error:
        raise ImportError(
            "The generator for training needs diffusers, which cannot be imported: pip install diffusers. "
            f"({error})"
        ) from error
    return UNet2DConditionModel.from_config(dict(config or SDXL_CONFIG))


def load_unet(path: str | Path) -> nn.Module:
    """A UNet in eval mode, in the file's precision, on the CPU.

    path: a folder with config.json and one .safetensors file, or a .safetensors file of SDXL alone.
    Raises ValueError, in a sentence, where tensors are missing or left over.
    """
    from safetensors.torch import load_file

    path = Path(path)
    config, file = None, path
    if path.is_dir():
        files = sorted(path.glob("*diffusion_pytorch_model*.safetensors"))
        if len(files) != 1 or not (path / "config.json").is_file():
            raise ValueError(
                f"{path} is not the folder of a UNet: it needs config.json and one .safetensors file of "
                f"weights, and has {len(files)}."
            )
        config, file = json.loads((path / "config.json").read_text(encoding="utf-8")), files[0]
    tensors = {key: t for key, t in load_file(file).items() if not key.startswith("exif_embedding.")}
    unet = build_unet(config).to(next(iter(tensors.values())).dtype)
    missing, extra = unet.load_state_dict(tensors, strict=False)
    if missing or extra:
        raise ValueError(
            f"{file.name} is not this UNet with diffusers' names: {len(missing)} of "
            f"{len(unet.state_dict())} tensors are missing and {len(extra)} are not known."
        )
    return unet.eval()


def time_ids(latent: Tensor) -> Tensor:
    """SDXL's picture size, crop and target size `(B, 6)`, px: an uncropped picture of the latent's size."""
    height, width = (side * LATENT_PX for side in latent.shape[-2:])
    return latent.new_tensor([height, width, 0, 0, height, width]).expand(latent.shape[0], -1)


def generate(
    unet: nn.Module,
    noises: Iterable[Tensor],
    text: Tensor,
    pooled: Tensor,
    *,
    timesteps: Sequence[int] = FOUR_STEPS,
    start_step: int = 0,
    latent: Tensor | None = None,
    ids: Tensor | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """The clean latent `(B, C, H, W)` after the last step.

    unet: diffusers' UNet2DConditionModel. noises: of step after step, `(B, C, H, W)` of unit variance, such
    as `ItemNoise.draw` gives. text `(B, L, D)`, pooled `(B, P)`: the encoded prompt.
    start_step: first step; from 1 on `latent` is needed, and diffused to that step. ids: `(B, 6)`, see
    `time_ids`. on_step(i, clean): after every step with its clean estimate.
    Steps are computed in float64, the network in its own precision. Differentiable.
    """
    weight = next(unet.parameters())
    if start_step and latent is None:
        raise ValueError(f"Step {start_step} starts from a latent, and there is none: start at step 0.")

    def eps(noisy: Tensor, t: int) -> Tensor:
        sizes = (time_ids(noisy) if ids is None else ids).to(weight.device, torch.float32)
        added = {"text_embeds": pooled.to(weight), "time_ids": sizes}
        reads = {"encoder_hidden_states": text.to(weight), "added_cond_kwargs": added}
        return unet(noisy.to(weight.dtype), t, **reads).sample

    return sample_few_steps(
        eps,
        (noise.to(weight.device) for noise in noises),
        timesteps[start_step:],
        latent=latent if start_step else None,
        on_step=None if on_step is None else lambda i, clean: on_step(start_step + i, clean),
    )
