"""The definition, spelled out: one shifted copy of the picture per tap. Slow and exact, for tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import disc


def gather(image: Tensor, radius_px: Tensor) -> Tensor:
    """Each output pixel averages its neighbourhood with the disc of its own radius.

    image: `(B, C, H, W)`, any float type; radius_px: `(B, H, W)` >= 0, same type. Borders replicate.
    Returns `(B, C, H, W)`. Differentiable by plain autograd. Cost: O(R²) passes over the picture.
    """
    levels = disc.levels_for(float(radius_px.detach().max()))
    lo, t = levels.mix(radius_px)
    size = torch.as_tensor(levels.size, dtype=image.dtype, device=image.device)
    total = torch.as_tensor(levels.total, dtype=image.dtype, device=image.device)
    reach = levels.reach_px
    height, width = image.shape[-2:]
    padded = F.pad(image, (reach, reach, reach, reach), mode="replicate")
    out = torch.zeros_like(image)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            distance = (dx * dx + dy * dy) ** 0.5
            weight_lo = (size[lo] - distance).clamp(0.0, 1.0) / total[lo]
            weight_hi = (size[lo + 1] - distance).clamp(0.0, 1.0) / total[lo + 1]
            weight = (1.0 - t) * weight_lo + t * weight_hi
            out = out + weight[:, None] * padded[..., reach + dy :, reach + dx :][..., :height, :width]
    return out
