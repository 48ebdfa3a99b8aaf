"""From where the eye goes to how far that is: saliency or a mask with depth to a focus distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import broadcast_batch

WEIGHTED_MEAN = "weighted mean"
REGION_MEDIAN = "median of the most salient region"
STRATEGIES = (WEIGHTED_MEAN, REGION_MEDIAN)
MASK_WAYS = ("median", "nearest", "percentile")

#: Saliency of a region, as a share of the picture's highest.
_REGION_SHARE = 0.5
#: Connected regions are looked for on a grid with at most this many cells a side.
_REGION_GRID = 128
_IN_MASK = 0.5
_STRETCH = 0.02


@dataclass(frozen=True, eq=False)
class FoundDistance:
    """Focus distances `(B,)` in metres, +inf = sky, and what the artist should know about them."""

    metres: Tensor
    warnings: tuple[str, ...] = ()


def measured(depth_m: Tensor) -> Tensor:
    """Where a depth map has a distance, bool of its shape: finite and > 0. Sky (+inf) has none."""
    return torch.isfinite(depth_m) & (depth_m > 0)


def nearest_m(depth_m: Tensor) -> Tensor:
    """Nearest measured distance of each map `(B, H, W)`, `(B,)` metres; +inf where there is none."""
    return torch.where(measured(depth_m), depth_m, torch.full_like(depth_m, torch.inf)).flatten(1).amin(dim=1)


def weighted_mean_m(depth_m: Tensor, saliency: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 4: f_d = Σ d S / Σ S over the pixels that have a distance.

    depth_m: `(B, H, W)` metres, +inf = sky; saliency: `(B, H, W)` >= 0. Summed in float32 at least.
    Returns the distances `(B,)`, differentiable in both, and where nothing was salient `(B,)` bool: there
    the distance is the nearest measured one.
    """
    depth_m, saliency = (t if t.dtype == torch.float64 else t.float() for t in (depth_m, saliency))
    known = measured(depth_m)
    none = torch.zeros((), dtype=depth_m.dtype, device=depth_m.device)
    # sky is taken out before it is multiplied: inf times a weight of 0 is NaN, and so is its gradient
    depth = torch.where(known, depth_m, none)
    weight = torch.where(known & (saliency > 0), saliency, none.to(saliency.dtype))
    total = weight.flatten(1).sum(dim=1)
    empty = ~(total > torch.finfo(total.dtype).tiny)
    mean = (depth * weight).flatten(1).sum(dim=1) / torch.where(empty, torch.ones_like(total), total)
    return torch.where(empty, nearest_m(depth_m).to(mean.dtype), mean), empty


def focus_distance_m(depth_m: Tensor, saliency: Tensor, strategy: str = WEIGHTED_MEAN) -> FoundDistance:
    """Where to focus, given where the eye goes.

    depth_m: `(B, H, W)` metres, +inf = sky, which is left out; saliency: `(B, H, W)` 0..1, resized to the
        depth where its size differs. 1 broadcasts with N.
    strategy: "weighted mean" is eq. 4; with two subjects it can fall between them. "median of the most
        salient region" takes the connected region with the largest sum of saliency, and its weighted
        median: always a distance at which something is.
    Where nothing is salient the distance is the nearest measured one, and a warning says so.
    Raises ValueError for an unknown strategy and for batches that do not go together.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f'"{strategy}" is not a strategy: use one of {", ".join(STRATEGIES)}.')
    depth_m, saliency, _ = _paired(depth_m, saliency, "saliency maps")
    if strategy == WEIGHTED_MEAN:
        metres, empty = weighted_mean_m(depth_m, saliency)
    else:
        weight = torch.where(measured(depth_m), saliency, torch.zeros_like(saliency))
        weight = weight.nan_to_num().clamp_min(0)
        weight = weight * most_salient_region(weight)
        metres, empty = _weighted_quantile(depth_m, weight, 0.5)
    return FoundDistance(metres, _nearest_instead(empty, metres, "nothing is salient"))


def focus_from_mask(
    depth_m: Tensor, mask: Tensor, how: str = "median", *, percentile: float = 50.0
) -> FoundDistance:
    """Focus on what a mask covers.

    depth_m: `(B, H, W)` metres, +inf = sky; mask: `(B, H, W)` 0..1, resized to the depth, soft edges weigh
        less. 1 broadcasts with N. Sky inside the mask is left out.
    how: "median" of the covered distances; "nearest" of those the mask covers by half or more; "percentile"
        of the covered distances, 0 = nearest, 100 = farthest.
    A mask that covers only sky focuses at infinity; one that covers nothing on the nearest measured depth;
    a warning says so.
    Raises ValueError for an unknown way, a percentile outside 0..100 and batches that do not go together.
    """
    if how not in MASK_WAYS:
        raise ValueError(f'"{how}" is not a way to focus from a mask: use one of {", ".join(MASK_WAYS)}.')
    if not 0.0 <= percentile <= 100.0:
        raise ValueError(f"percentile is {percentile:g}: it must lie between 0 and 100.")
    depth_m, mask, warnings = _paired(depth_m, mask, "masks")
    mask = mask.nan_to_num().clamp(0.0, 1.0)
    if how == "nearest":
        inside = (mask >= _IN_MASK).to(mask.dtype)
        # a mask that is nowhere half covered still has a nearest pixel
        mask = torch.where(inside.flatten(1).any(dim=1)[:, None, None], inside, mask)
    share = {"median": 0.5, "nearest": 0.0, "percentile": percentile / 100.0}[how]
    weight = torch.where(measured(depth_m), mask, torch.zeros_like(mask))
    metres, empty = _weighted_quantile(depth_m, weight, share)
    on_sky = (torch.where(torch.isposinf(depth_m), mask, torch.zeros_like(mask)) > 0).flatten(1).any(dim=1)
    sky, nothing = empty & on_sky, empty & ~on_sky
    metres = torch.where(sky, torch.full_like(metres, torch.inf), metres)
    if bool(sky.any()):
        warnings += (_sentence(sky, "the mask covers only sky: the focus is at infinity."),)
    return FoundDistance(metres, warnings + _nearest_instead(nothing, metres, "the mask covers nothing"))


def fitted_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask `(B, H, W)`, `(H, W)` or `(B, 1, H, W)` at another size, `(B, height, width)` float.

    Raises ValueError for another shape and for an empty one.
    """
    if mask.ndim == 2:
        mask = mask[None]
    elif mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim != 3 or 0 in mask.shape:
        raise ValueError(f"A mask must be (batch, height, width), not {tuple(mask.shape)}.")
    mask = mask if mask.dtype == torch.float64 else mask.float()
    return resized(mask[:, None], height, width)[:, 0]


def resized(planes: Tensor, height: int, width: int) -> Tensor:
    """`(B, C, H, W)` at another size; a smaller one averages, as the network's training did."""
    if planes.shape[-2:] == (height, width):
        return planes
    return F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def most_salient_region(saliency: Tensor) -> Tensor:
    """The connected region with the largest sum of saliency, `(B, H, W)` bool, of saliency `(B, H, W)` >= 0.

    A region is what reaches half of the picture's highest saliency and touches, corners included.
    """
    from scipy import ndimage

    saliency = saliency.detach()
    highest = saliency.flatten(1).amax(dim=1)[:, None, None]
    salient = (saliency >= _REGION_SHARE * highest) & (saliency > 0)
    height, width = saliency.shape[-2:]
    shrink = max(1.0, max(height, width) / _REGION_GRID)
    grid = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    cells = F.adaptive_max_pool2d(salient[:, None].float(), grid)[:, 0] > 0
    sums = F.adaptive_avg_pool2d((saliency * salient)[:, None], grid)[:, 0]
    chosen = torch.zeros_like(cells)
    for i, cell in enumerate(cells):
        labels, count = cast(tuple[np.ndarray, int], ndimage.label(cell.cpu().numpy(), np.ones((3, 3))))
        if count:
            totals = ndimage.sum_labels(sums[i].cpu().numpy(), labels, range(1, count + 1))
            chosen[i] = torch.from_numpy(labels == totals.argmax() + 1)
    wide = F.interpolate(chosen[:, None].float(), size=(height, width), mode="nearest-exact")[:, 0] > 0.5
    return wide & salient


def _weighted_quantile(depth_m: Tensor, weight: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Distance below which `share` of the weight lies, `(B,)`; and which had no weight, `(B,)` bool.

    It is one of the map's own distances. Those without weight get the nearest measured one.
    """
    distances, nearest = [], nearest_m(depth_m)
    empty = ~(weight > 0).flatten(1).any(dim=1)
    for depth, w, near, none in zip(depth_m, weight, nearest, empty, strict=True):
        if none:
            distances.append(near)
            continue
        covered = w > 0
        values, order = depth[covered].sort()
        below = w[covered][order].detach().cumsum(dim=0)
        at = torch.searchsorted(below, below[-1:] * share).clamp_max(values.numel() - 1)
        distances.append(values[at[0]])
    return torch.stack(distances), empty


def _paired(depth_m: Tensor, map_: Tensor, name: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Depth and a map of the same `(B, H, W)`, and a warning where the map had to be stretched."""
    if depth_m.ndim != 3 or 0 in depth_m.shape:
        raise ValueError(f"Depth must be (batch, height, width), not {tuple(depth_m.shape)}.")
    height, width = depth_m.shape[-2:]
    given_height, given_width = map_.shape[-2:]
    map_ = fitted_mask(map_.to(depth_m.device), height, width)
    count = broadcast_batch(**{"depths": depth_m.shape[0], name.replace(" ", "_"): map_.shape[0]})
    warnings = ()
    if abs(given_width * height / (given_height * width) - 1.0) > _STRETCH:
        warnings = (
            f"The {name} are {given_width} × {given_height} px and the depth is {width} × {height}: "
            "they were stretched to fit.",
        )
    return depth_m.expand(count, -1, -1), map_.expand(count, -1, -1), warnings


def _sentence(some: Tensor, text: str) -> str:
    """A sentence about those pictures of a batch, named where there are several."""
    if some.numel() == 1:
        return text[0].upper() + text[1:]
    numbers = [str(i + 1) for i in some.nonzero().flatten().tolist()]
    listed = ", ".join(numbers[:5]) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
    return f"Picture {listed} of {some.numel()}: {text}"


def _nearest_instead(empty: Tensor, metres: Tensor, why: str) -> tuple[str, ...]:
    """A warning where pictures of a batch, `empty`, `(B,)` bool, fell back to the nearest depth."""
    if not bool(empty.any()):
        return ()
    nearest = metres.detach()[empty].min().item()
    where = "there is only sky, so the focus is at infinity"
    if nearest < float("inf"):
        where = f"the focus is on the nearest measured depth, {nearest:.3g} m"
    return (_sentence(empty, f"{why}: {where}."),)
