"""Depth beside the edge of a subject: the mask knows the edge, the depth map only about where it is."""

from __future__ import annotations

import torch
from torch import Tensor

from .inpaint import push_pull
from .morphology import dilate, erode

#: How far from the mask's edge depth is doubted, as a share of the longer side, and at least, px.
_DOUBTED, _LEAST_DOUBTED_PX = 0.02, 4
#: Depth that is this share of the way to the other side of the edge belongs neither here nor there,
_AWAY = 0.2
#: where that way changes the blur radius by so much, px.
_MATTERS_PX = 2.0
_SURE = 0.05


@torch.no_grad()
def along_the_mask(inverse_depth: Tensor, subject: Tensor, px_per_inverse_m: float) -> Tensor:
    """Inverse depth `(H, W)` 1/m whose steps at the mask's edge are where the mask says.

    A network gives hair the depth of what is behind it, and a rim of the background that of the head. Within
    a band along the edge a pixel of the mask that is on its way to the depth outside takes the depth of the
    subject deeper inside, and the other way round. Depth away from the edge stays as it is.

    subject: `(H, W)` mask 0..1. px_per_inverse_m: blur radius in px per 1/m. Constant for gradients.
    """
    own = subject >= 0.5
    reach = max(_LEAST_DOUBTED_PX, round(_DOUBTED * max(own.shape)))
    core = erode(own, 2 * reach + 1)
    around = ~dilate(subject > _SURE, 2 * reach + 1)
    if not core.any() or not around.any():
        return inverse_depth
    plane = inverse_depth[None, None]
    inside, outside = (push_pull(plane, known[None, None].to(plane))[0, 0] for known in (core, around))
    here, there = (torch.where(own, *sides) for sides in ((inside, outside), (outside, inside)))
    way = there - here
    # up to a quarter of _AWAY nearly unchanged, then taken back without a seam
    gone = ((inverse_depth - here) / torch.where(way == 0.0, 1.0, way)).clamp_min(0.0)
    remaining = (1.0 - gone / _AWAY).clamp_min(0.0)
    doubted = torch.where(own, ~core, ~around) & (way.abs() * px_per_inverse_m > _MATTERS_PX) & (gone > 0.0)
    return torch.where(doubted, here + (inverse_depth - here) * remaining, inverse_depth)
