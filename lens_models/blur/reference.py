"""The definition, spelled out: one shifted copy of the picture per tap. Slow and exact, for tests."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import disc
from ..shape import ApertureShape
from .family import Family, orientations, zones
from .torch_stack import reach_px


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


def _table(family: Family, count: int, reach: int) -> Tensor:
    """All kernels of a family in squares of one size, `(K, 2 reach + 1, 2 reach + 1)`."""
    result = torch.zeros(count, 2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    for k in range(count):
        kernel = torch.from_numpy(family.kernel(k))
        y, x = reach - kernel.shape[0] // 2, reach - kernel.shape[1] // 2
        result[k, y : y + kernel.shape[0], x : x + kernel.shape[1]] = kernel
    return result


def _shape_taps(radius_px: Tensor, shape: ApertureShape, margin: int) -> Iterator[tuple[int, int, Tensor]]:
    """The same for a shape and signed radii; a light at 0 reaches (dy, dx)."""
    height, width = radius_px.shape[-2:]
    largest, parts = float(radius_px.detach().abs().max()), []
    for zone in zones(shape, height, width, margin, radius_px):
        count = zone.family.levels_for(largest)
        lo, t = zone.family.mix(radius_px, count)
        reach = zone.family.reach(count - 1)
        kernels = _table(zone.family, count, reach).to(radius_px)
        here = zone.weight(slice(None), slice(None))
        for mirrored, which in orientations(zone, radius_px.detach()):
            weight = torch.ones_like(radius_px) if here is None else here.expand_as(radius_px)
            weight = weight if which is None else weight * which
            parts.append((reach, kernels.flip(1, 2) if mirrored else kernels, lo, t, weight))
    widest = max(reach for reach, *_ in parts)
    for dy in range(-widest, widest + 1):
        for dx in range(-widest, widest + 1):
            total = torch.zeros_like(radius_px)
            for reach, kernels, lo, t, weight in parts:
                if max(abs(dy), abs(dx)) <= reach:
                    tap = kernels[:, reach + dy, reach + dx]
                    total = total + weight * ((1.0 - t) * tap[lo] + t * tap[lo + 1])
            yield dy, dx, total


def _all_taps(radius_px: Tensor, shape: ApertureShape | None, margin: int) -> tuple[int, Iterator]:
    """(reach, taps)"""
    reach = reach_px(radius_px, shape, margin)
    if shape is not None and not shape.is_disc:
        return reach, _shape_taps(radius_px, shape, margin)
    return reach, _taps(radius_px if shape is None else radius_px.abs())


def gather(image: Tensor, radius_px: Tensor, *, shape: ApertureShape | None = None) -> Tensor:
    """`blur.gather` for any float type, differentiable by autograd, in O(R²) passes over the picture."""
    reach, taps = _all_taps(radius_px, shape, 0)
    height, width = image.shape[-2:]
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    out = torch.zeros_like(image)
    for dy, dx, weight in taps:
        # light from -(dy, dx) lands here
        out = out + weight[:, None] * padded[..., reach - dy :, reach - dx :][..., :height, :width]
    return out


def scatter(
    image: Tensor, radius_px: Tensor, *, shape: ApertureShape | None = None, margin_px: int = 0
) -> Tensor:
    """`blur.scatter`; types and cost as in `gather`."""
    reach, taps = _all_taps(radius_px, shape, margin_px)
    height, width = image.shape[-2:]
    out = image.new_zeros(*image.shape[:2], height + 2 * reach, width + 2 * reach)
    for dy, dx, weight in taps:
        around = (reach + dx, reach - dx, reach + dy, reach - dy)
        out = out + F.pad(weight[:, None] * image, around)
    return out[..., reach : reach + height, reach : reach + width]
