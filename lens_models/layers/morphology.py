"""Dilation, erosion and the filters behind them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dilate(mask: Tensor, side: int = 3) -> Tensor:
    """Bool `(H, W)` mask grown by a square of odd `side`."""
    return max_filter(mask.byte(), side, 0).bool()


def max_filter(plane: Tensor, side: int, beyond: float = -torch.inf) -> Tensor:
    """The largest value `(H, W)` in a square of odd `side` about each pixel; past its border `beyond`."""
    reach = side // 2
    for axis, edges in ((1, (reach, reach)), (0, (0, 0, reach, reach))):
        plane, window = F.pad(plane, edges, value=beyond), 1
        # windows twice as long out of two, then one that overlaps: faster than pooling
        while window < side:
            more = min(window, side - window)
            length = plane.shape[axis] - more
            plane = torch.maximum(plane.narrow(axis, 0, length), plane.narrow(axis, more, length))
            window += more
    return plane


def erode(mask: Tensor, side: int = 3) -> Tensor:
    """Bool `(H, W)` mask shrunk by a square of odd `side`; the border does not eat into it."""
    return ~dilate(~mask, side)
