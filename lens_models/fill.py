"""What lies under nearer things: filling a picture where it is not known."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

#: A binomial of three, then pairs averaged: what halves the pyramid, per axis.
_HALVING = (0.125, 0.375, 0.375, 0.125)


class Background(Protocol):
    """Anything that can continue a picture under nearer layers: push-pull, a plate, a learned inpainter."""

    def __call__(self, values: Tensor, weight: Tensor) -> Tensor:
        """values `(B, C, H, W)`, weight `(B, 1, H, W)` 0..1 = how far each pixel is known; filled values."""


def push_pull(values: Tensor, weight: Tensor) -> Tensor:
    """Smooth fill by a pyramid of weighted means: near a hole its own rim counts, far inside the wider view.

    values: `(B, C, H, W)`; weight: `(B, 1, H, W)` 0..1. Where weight is 1 the value is kept.
    Returns `(B, C, H, W)`; zero where nothing is known at all. Differentiable in the values.
    """
    channels = values.shape[1]
    kernel = values.new_tensor(_HALVING).expand(channels + 1, 1, 4)
    pyramid = [torch.cat([values * weight, weight], dim=1)]
    while min(pyramid[-1].shape[-2:]) > 2:
        fine = pyramid[-1]
        height, width = fine.shape[-2:]
        # odd sides repeat their last line once more, so that halving loses nothing
        coarse = F.pad(fine, (1, 1 + width % 2, 1, 1 + height % 2), mode="replicate")
        coarse = F.conv2d(coarse, kernel[:, :, None], stride=(1, 2), groups=channels + 1)
        coarse = F.conv2d(coarse, kernel[..., None], stride=(2, 1), groups=channels + 1)
        known = coarse[:, channels:]
        trusted = (4.0 * known).clamp_max(1.0)  # one known pixel of four is enough
        pyramid.append(torch.cat([coarse[:, :channels] * (trusted / known.clamp_min(1e-12)), trusted], dim=1))
    known = pyramid[-1][:, channels:]
    filled = pyramid[-1][:, :channels] / known.clamp_min(1e-12)
    for fine in reversed(pyramid[:-1]):
        wide = F.interpolate(filled, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        filled = wide * (1.0 - fine[:, channels:]) + fine[:, :channels]
    return filled
