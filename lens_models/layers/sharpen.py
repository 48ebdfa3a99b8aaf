"""Depth edges that a network or a resize softened, hardened along the picture's own edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..memory import bands_of
from ..progress import Progress
from .morphology import max_filter

_WINDOW, _WIDE_WINDOW = 9, 17
#: A step counts from this blur radius on, px.
_LEAST_STEP_PX = 0.5
#: A slope doubles its range in a window twice as wide; an edge between plateaus does not.
_PLATEAU = 1.5
_PURE = 0.15
#: Rise per px, as a share of the step, that separates a softened step from a surface that slopes beside one.
_RISE = 0.02
_SPREAD_PX = 3.0
#: How far from a pixel its sharpening looks: plateaus within three spreads, each of them by its own windows.
_REACH = 3 * 3 + _WIDE_WINDOW // 2 + 1
_BAND_ROWS = 256
#: Squared colour difference (linear light) at which the picture is fully trusted to decide.
_CLEAR_COLOUR = 0.02


def _local_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Gaussian mean of `(C, H, W)` where `(H, W)` weight is."""
    reach = int(3 * _SPREAD_PX)
    axis = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-0.5 * (axis / _SPREAD_PX) ** 2)
    planes = torch.cat([values * weight, weight[None]])[:, None]
    planes = F.conv2d(planes, kernel.view(1, 1, 1, -1), padding=(0, reach))
    planes = F.conv2d(planes, kernel.view(1, 1, -1, 1), padding=(reach, 0))[:, 0]
    return planes[:-1] / planes[-1:].clamp_min(1e-9)


def _least_rise(plane: Tensor) -> Tensor:
    """Smaller of the steps to both sides, along the axis where that is larger."""
    padded = F.pad(plane[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    across = (padded[1:-1, 1:] - padded[1:-1, :-1]).abs()
    down = (padded[1:, 1:-1] - padded[:-1, 1:-1]).abs()
    return torch.maximum(torch.minimum(across[:, 1:], across[:, :-1]), torch.minimum(down[1:], down[:-1]))


@torch.no_grad()
def sharpened(
    picture: Tensor, inverse_depth: Tensor, px_per_inverse_m: float, on_progress: Progress | None = None
) -> Tensor:
    """Inverse depth `(H, W)` 1/m whose blurred steps are hard edges; hard edges and slopes stay as they are.

    picture: `(3, H, W)` linear light. px_per_inverse_m: blur radius in px per 1/m, which says what step
    matters. In a window across a step each pixel takes the nearer or the farther plateau, by its own depth
    and by which plateau's colour it has. on_progress: called with (done, total); may raise to interrupt.
    Constant for gradients.
    """
    result = torch.empty_like(inverse_depth)
    for band, source, inner in bands_of(len(result), _BAND_ROWS, _REACH):
        hardened = _sharpened(picture[:, source], inverse_depth[source], px_per_inverse_m, inner)
        result[band] = hardened[inner]
        if on_progress is not None:
            on_progress(band.stop, len(result))
    return result


def _sharpened(picture: Tensor, inverse_depth: Tensor, px_per_inverse_m: float, inner: slice) -> Tensor:
    """A band of rows with the rows that it depends on, of which only the `inner` ones are right."""
    high, low = max_filter(inverse_depth, _WINDOW), -max_filter(-inverse_depth, _WINDOW)
    wide = max_filter(inverse_depth, _WIDE_WINDOW) + max_filter(-inverse_depth, _WIDE_WINDOW)
    step = high - low
    place = (inverse_depth - low) / step.clamp_min(1e-12)
    # a pixel of a plateau between two others, or beside a hard edge, has a flat side and is left alone
    between = (place > 0.02) & (place < 0.98) & (_least_rise(inverse_depth) > _RISE * step)
    soft = between & (step * px_per_inverse_m > _LEAST_STEP_PX) & (wide < _PLATEAU * step)
    if not soft[inner].any():
        return inverse_depth
    at_step = step * px_per_inverse_m > _LEAST_STEP_PX
    near = _local_mean(picture, (at_step & (place > 1.0 - _PURE)).to(picture))
    far = _local_mean(picture, (at_step & (place < _PURE)).to(picture))
    to_near, to_far = ((picture - side).square().sum(0) for side in (near, far))
    vote = to_far / (to_near + to_far).clamp_min(1e-12)
    trust = ((near - far).square().sum(0) / _CLEAR_COLOUR).clamp_max(1.0) / 2.0
    nearer = place * (1.0 - trust) + vote * trust > 0.5
    return torch.where(soft, torch.where(nearer, high, low), inverse_depth)
