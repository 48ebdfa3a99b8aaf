"""What every lens does around its blur: check the scene, take items of a batch, find runs of equal ones."""

from __future__ import annotations

import dataclasses
from typing import TypedDict

import torch
from torch import Tensor

from .camera import Focus
from .progress import Progress
from .shape import ApertureShape


class LensOptions(TypedDict, total=False):
    """The options of `taf_lens`, which says what each is; every lens has them."""

    shape: ApertureShape | None
    max_radius_px: float | None
    engine: str
    on_progress: Progress | None
    memory_bytes: int | None


#: What an infinite radiance is read as: the largest half float, brighter than any light in a picture.
BRIGHTEST = 65504.0


def checked_scene(radiance: Tensor, depth_m: Tensor) -> tuple[Tensor, Tensor]:
    """Radiance without NaN or inf, and depth, both float32 or both float64 on the picture's device.

    radiance: `(B, 3 or 4, H, W)`; depth_m: `(B, H, W)`.
    Raises ValueError, a sentence with both numbers, for anything else.
    """
    if radiance.ndim != 4 or radiance.shape[1] not in (3, 4):
        raise ValueError(f"radiance must be (batch, 3 or 4, height, width), not {tuple(radiance.shape)}.")
    if depth_m.ndim != 3 or depth_m.shape[-2:] != radiance.shape[-2:]:
        raise ValueError(
            f"depth is {tuple(depth_m.shape)} and the picture {tuple(radiance.shape)}: depth must be "
            "(batch, height, width) with the picture's height and width."
        )
    dtype = torch.float64 if torch.float64 in (radiance.dtype, depth_m.dtype) else torch.float32
    radiance = torch.nan_to_num(radiance.to(dtype), nan=0.0, posinf=BRIGHTEST, neginf=0.0)
    return radiance, depth_m.to(device=radiance.device, dtype=dtype)


def largest_radius_px(max_radius_px: float | None, height: int, width: int) -> float:
    """The radius that limits the blur: the one asked for, else the picture's longer side.

    Raises ValueError for a negative one.
    """
    if max_radius_px is not None and not max_radius_px >= 0:
        raise ValueError(f"max_radius_px is {max_radius_px}: it must be 0 or more.")
    return float(max(height, width) if max_radius_px is None else max_radius_px)


def item(batch: Tensor, index: int) -> Tensor:
    """One item of a batch, its batch axis kept; a single item stands for every index."""
    return batch[index : index + 1] if batch.shape[0] > 1 else batch


def run_stop(start: int, count: int, *parts: Tensor | Focus) -> int:
    """The end of the run of items equal to item `start`: what is computed for it serves start..stop.

    count: items of the batch; parts: what must not change, each single or a batch of `count`.
    Items are compared value by value; nothing is copied.
    """
    for stop in range(start + 1, count):
        if not all(_same(part, start, stop) for part in parts):
            return stop
    return count


def _same(part: Tensor | Focus, one: int, other: int) -> bool:
    if isinstance(part, Focus):
        values = (getattr(part, field.name) for field in dataclasses.fields(part))
        return all(_same(v, one, other) for v in values if isinstance(v, Tensor) and v.numel() > 1)
    # a batch that was only expanded has one item in memory
    return part.shape[0] == 1 or part.stride(0) == 0 or torch.equal(part[one], part[other])
