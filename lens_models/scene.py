"""What every lens does around its blur: check the scene, take one item of a batch, tell its progress."""

from __future__ import annotations

import torch
from torch import Tensor

#: What an infinite radiance is read as: the largest half float, brighter than any light in a picture.
BRIGHTEST = 65504.0


def checked_scene(radiance: Tensor, depth_m: Tensor, max_radius_px: float | None) -> tuple[Tensor, Tensor]:
    """Radiance without NaN or inf, and depth, both float32 or both float64 on the picture's device.

    radiance: `(B, 3 or 4, H, W)`; depth_m: `(B, H, W)`; max_radius_px: None or >= 0.
    Raises ValueError, a sentence with both numbers, for anything else.
    """
    if radiance.ndim != 4 or radiance.shape[1] not in (3, 4):
        raise ValueError(f"radiance must be (batch, 3 or 4, height, width), not {tuple(radiance.shape)}.")
    if depth_m.ndim != 3 or depth_m.shape[-2:] != radiance.shape[-2:]:
        raise ValueError(
            f"depth is {tuple(depth_m.shape)} and the picture {tuple(radiance.shape)}: depth must be "
            "(batch, height, width) with the picture's height and width."
        )
    if max_radius_px is not None and not max_radius_px >= 0:
        raise ValueError(f"max_radius_px is {max_radius_px}: it must be 0 or more.")
    dtype = torch.float64 if torch.float64 in (radiance.dtype, depth_m.dtype) else torch.float32
    radiance = torch.nan_to_num(radiance.to(dtype), nan=0.0, posinf=BRIGHTEST, neginf=0.0)
    return radiance, depth_m.to(device=radiance.device, dtype=dtype)


def largest_radius_px(max_radius_px: float | None, height: int, width: int) -> float:
    """The radius at which blur is held: the one asked for, else the picture's longer side."""
    return float(max(height, width) if max_radius_px is None else max_radius_px)


def item(batch: Tensor, index: int) -> Tensor:
    """One item of a batch, its batch axis kept; what is single answers to every index."""
    return batch[index : index + 1] if batch.shape[0] > 1 else batch
