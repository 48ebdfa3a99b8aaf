"""The definition, spelled out: one shifted copy of the picture per tap. Slow and exact, for tests."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import disc


def _taps(radius_px: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """(dy, dx, weight `(B, H, W)`) of every offset that the disc of any pixel touches."""
    levels = disc.levels_for(float(radius_px.detach().max()))
    lo, t = levels.mix(radius_px)
    size = torch.as_tensor(levels.size, dtype=radius_px.dtype, device=radius_px.device)
    total = torch.as_tensor(levels.total, dtype=radius_px.dtype, device=radius_px.device)
    reach = levels.reach_px
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            distance = (dx * dx + dy * dy) ** 0.5
            weight_lo = (size[lo] - distance).clamp(0.0, 1.0) / total[lo]
            weight_hi = (size[lo + 1] - distance).clamp(0.0, 1.0) / total[lo + 1]
            yield dy, dx, (1.0 - t) * weight_lo + t * weight_hi


def gather(image: Tensor, radius_px: Tensor) -> Tensor:
    """Each output pixel averages its neighbourhood with the disc of its own radius.

    image: `(B, C, H, W)`, any float type; radius_px: `(B, H, W)` >= 0, same type. Borders replicate.
    Returns `(B, C, H, W)`. Differentiable by plain autograd. Cost: O(R²) passes over the picture.
    """
    reach = disc.levels_for(float(radius_px.detach().max())).reach_px
    height, width = image.shape[-2:]
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    out = torch.zeros_like(image)
    for dy, dx, weight in _taps(radius_px):
        out = out + weight[:, None] * padded[..., reach + dy :, reach + dx :][..., :height, :width]
    return out


def scatter(image: Tensor, radius_px: Tensor) -> Tensor:
    """Each source pixel spreads its light over the disc of its own radius; what leaves the frame is lost.

    Shapes, types and cost as in `gather`.
    """
    reach = disc.levels_for(float(radius_px.detach().max())).reach_px
    height, width = image.shape[-2:]
    out = image.new_zeros(*image.shape[:2], height + 2 * reach, width + 2 * reach)
    for dy, dx, weight in _taps(radius_px):
        around = (reach + dx, reach - dx, reach + dy, reach - dy)
        out = out + F.pad(weight[:, None] * image, around)
    return out[..., reach : reach + height, reach : reach + width]
