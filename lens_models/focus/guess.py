"""A guess at what a picture is of, from contrast alone: no weights, nothing learned.

What differs in colour from whatever touches the picture's border, and stands nearer than it, with a prior
for the centre. It is robust background detection (Zhu et al., CVPR 2014) on superpixels of colour and
inverse depth, with one cue of our own: standing in front of the background.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import NEAREST_DEPTH_M, broadcast_batch
from ..depth.convert import fill_missing
from ..light import srgb_to_linear
from .superpixels import Superpixels, superpixels

_WORK_PX = 240
_PIECES = 320
_COMPACTNESS = 0.35
#: CIELAB units, and share of the inverse-depth range, that count as a difference of 1.
_LAB_UNIT = 20.0
_DEPTH_UNIT = 0.15
#: Below this spread of inverse depth (of its largest value) a map is flat and tells nothing.
_FLAT = 0.05
#: How far along the cheapest way a piece counts as the same surface, in differences.
_SAME_SURFACE = 0.5
#: Border length / √area from which a surface is background.
_BORDER_LENGTH = 1.0
#: Reach of contrast, and of the centre's prior, in picture sides.
_REACH = 0.4
_CENTRE = 0.4
#: Colour contrast beside standing in front, where there is depth.
_COLOUR_SHARE = 0.4
#: What the far end of the depth range counts; from there it rises to 1 with nearness.
_FARTHEST = 0.3
#: Difference up to which neighbours are drawn to one value; and how much background pulls to 0.
_LIKENESS = 0.55
_PULL = 1.1
#: The top share of the picture's area counts as 1; then this range is stretched to 0..1.
_TOP = 0.04
_LOW, _HIGH = 0.25, 0.6


@torch.no_grad()
def contrast_guess(srgb: Tensor, depth_m: Tensor | None = None) -> Tensor:
    """What stands out, `(B, H, W)` 0..1, without any weights.

    srgb: `(B, 3, H, W)` sRGB 0..1. depth_m: `(B, h, w)` metres, +inf = sky, any size; 1 broadcasts with N.
        Pixels without a distance are filled from their neighbours.
    Without depth, or with flat depth, it goes by colour and centre. Worked on the CPU in about 0.2 s a
    picture, at 240 px; not differentiable. A picture without any contrast gives 0 everywhere.
    Raises ValueError for another shape and for batches that do not go together.
    """
    if srgb.ndim != 4 or srgb.shape[1] != 3 or 0 in srgb.shape:
        raise ValueError(f"A picture must be (batch, 3, height, width); this one is {tuple(srgb.shape)}.")
    count = srgb.shape[0]
    if depth_m is not None:
        if depth_m.ndim != 3 or 0 in depth_m.shape:
            raise ValueError(f"Depth must be (batch, height, width), not {tuple(depth_m.shape)}.")
        count = broadcast_batch(pictures=count, depths=depth_m.shape[0])
        depth_m = depth_m.expand(count, -1, -1)
    srgb = srgb.expand(count, -1, -1, -1)
    height, width = srgb.shape[-2:]
    shrink = min(1.0, _WORK_PX / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))

    maps = []
    for i in range(count):
        picture = srgb[i : i + 1].float().nan_to_num().clamp(0.0, 1.0)
        small = F.interpolate(picture, size=size, mode="bilinear", align_corners=False, antialias=True).cpu()
        features = _lab(small)[0] / _LAB_UNIT
        nearness = None if depth_m is None else _nearness(depth_m[i : i + 1], size)
        if nearness is not None:
            features = torch.cat([features, nearness / _DEPTH_UNIT])
        pieces = superpixels(features, _PIECES, _COMPACTNESS)
        painted = _saliency(pieces, has_depth=nearness is not None)[pieces.labels]
        maps.append(F.interpolate(painted[None, None], size=(height, width), mode="bilinear")[0])
    return torch.cat(maps).to(srgb.device)


def _lab(srgb: Tensor) -> Tensor:
    """CIELAB (D65) of sRGB 0..1, `(B, 3, H, W)`: L 0..100, a and b about ±100."""
    rgb = srgb_to_linear(srgb)
    to_xyz = rgb.new_tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    )
    white = rgb.new_tensor([0.95047, 1.0, 1.08883]).reshape(1, 3, 1, 1)
    xyz = torch.einsum("ij,bjhw->bihw", to_xyz, rgb) / white
    root = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _nearness(depth_m: Tensor, size: tuple[int, int]) -> Tensor | None:
    """Inverse depth `(1, h, w)` stretched to 0..1 without its outliers; None where it is flat."""
    valid = depth_m > 0  # NaN compares False
    if not valid.any():
        return None
    inverse = 1.0 / fill_missing(depth_m.float(), valid).clamp_min(NEAREST_DEPTH_M)
    inverse = F.interpolate(inverse[:, None], size=size, mode="nearest-exact")[0].cpu()
    low, high = torch.quantile(inverse, torch.tensor([0.02, 0.98]))
    if not high - low > _FLAT * high:
        return None
    return ((inverse - low) / (high - low)).clamp(0.0, 1.0)


def _saliency(pieces: Superpixels, *, has_depth: bool) -> Tensor:
    """Saliency of each piece, `(n,)` 0..1."""
    colour = pieces.features[:, :3]
    different = torch.cdist(pieces.features, pieces.features)
    background = _background(pieces, different)

    apart = torch.cdist(pieces.position, pieces.position)
    against = torch.exp(-apart.square() / (2.0 * _REACH**2)) * (background * pieces.area)
    against = against / against.sum(dim=1, keepdim=True).clamp_min(1e-6)
    contrast = _stretched((torch.cdist(colour, colour) * against).sum(dim=1), pieces.area)
    nearness = torch.ones_like(contrast)
    if has_depth:
        near = pieces.features[:, 3]
        nearness = near.mul(_DEPTH_UNIT).add(_FARTHEST).clamp_max(1.0)
        in_front = ((near[:, None] - near).clamp_min(0.0) * against).sum(dim=1)
        contrast = _stretched(_COLOUR_SHARE * contrast + _stretched(in_front, pieces.area), pieces.area)
    prior = torch.exp(-(pieces.position - 0.5).square().sum(dim=1) / (2.0 * _CENTRE**2))
    foreground = contrast * (prior * nearness)

    # least squares: 1 where foreground, 0 where background, alike where neighbours are alike
    alike = torch.exp(-different.square() / (2.0 * _LIKENESS**2)) + 0.02
    alike = torch.where(pieces.touching, alike, torch.zeros_like(alike))
    pull = _PULL * background + foreground + 1e-3
    values = torch.linalg.solve(torch.diag(pull + alike.sum(dim=1)) - alike, foreground)
    step = ((_stretched(values, pieces.area) - _LOW) / (_HIGH - _LOW)).clamp(0.0, 1.0)
    step = step * step * (3.0 - 2.0 * step)
    # what is surely no background comes out as 1 above, however far it is
    return step * nearness


def _shortest(way: Tensor) -> Tensor:
    """Lengths `(n, n)` of the shortest ways through any pieces; `way` has the steps, inf = none."""
    from scipy.sparse.csgraph import csgraph_from_dense, floyd_warshall

    # in a plain or masked array SciPy takes a step of length 0 for no step
    steps = csgraph_from_dense(way.numpy(), null_value=np.inf)
    return torch.from_numpy(floyd_warshall(steps, directed=False)).to(way)


def _background(pieces: Superpixels, different: Tensor) -> Tensor:
    """How surely each piece belongs to a surface that runs out of the picture, `(n,)` 0..1."""
    at_border = pieces.border.sum(dim=1)
    on_border = at_border > 0
    # the border is one place: background that an object cuts in two stays one surface
    linked = pieces.touching | (on_border[:, None] & on_border)
    infinite = torch.full_like(different, torch.inf)
    likest = torch.where(pieces.touching, different, infinite).amin(dim=1)
    likest = likest[torch.isfinite(likest)]
    # steps as small as the surfaces' own texture cost nothing
    free = likest.mean() if likest.numel() else 0.0
    way = torch.where(linked, (different - free).clamp_min(0.0), infinite).fill_diagonal_(0.0)
    same = torch.exp(-_shortest(way).square() / (2.0 * _SAME_SURFACE**2))
    length = (same @ at_border) / (same @ pieces.area).sqrt()
    return 1.0 - torch.exp(-length.square() / (2.0 * _BORDER_LENGTH**2))


def _stretched(values: Tensor, area: Tensor) -> Tensor:
    """`(n,)` to 0..1, the highest `_TOP` of the area at 1, so that one glint does not set the scale."""
    ordered, order = values.sort(descending=True)
    top = int((area[order].cumsum(dim=0) < _TOP).sum().clamp_max(len(values) - 1))
    low, high = ordered[-1], ordered[top]
    return ((values - low) / (high - low).clamp_min(1e-6)).clamp(0.0, 1.0)
