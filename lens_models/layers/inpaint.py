"""What lies under nearer things: filling a picture where it is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..memory import bands_of
from ..progress import Progress

#: A binomial of three, then pairs averaged: what halves the pyramid, per axis.
_HALVING = (0.125, 0.375, 0.375, 0.125)


class Background(Protocol):
    """Anything that can continue a picture under nearer layers: push-pull, a plate, a learned inpainter."""

    def __call__(self, values: Tensor, weight: Tensor) -> Tensor:
        """values `(B, C, H, W)`, weight `(B, 1, H, W)` 0..1 = how far each pixel is known; filled values."""
        ...


def push_pull(values: Tensor, weight: Tensor, on_progress: Progress | None = None) -> Tensor:
    """Smooth fill by a pyramid of weighted means: near a hole its own rim counts, far inside the wider view.

    values: `(B, C, H, W)`; weight: `(B, 1, H, W)` 0..1. Where weight is 1 the value stays.
    on_progress: called with (done, total) between bands of rows; may raise to interrupt.
    Returns `(B, C, H, W)`; zero where nothing is known at all. Differentiable in the values.
    """
    pyramid = [(values, weight)]
    total, done = 2.7 * weight[0].numel(), 0.0  # both ways through all levels

    def report(size: int) -> None:
        nonlocal done
        done += size
        if on_progress is not None:
            on_progress(min(round(1000 * done / total), 1000), 1000)

    while min(pyramid[-1][1].shape[-2:]) > 2:
        pyramid.append(_pushed(*pyramid[-1], report))
    filled, known = pyramid.pop()
    filled = torch.where(known > 0, filled, 0.0)
    while pyramid:
        filled = _pulled(filled, *pyramid.pop(), report)
    return filled


def _pushed(values: Tensor, weight: Tensor, report: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """The next coarser level: weighted means, and how far they are known."""
    height, width = values.shape[-2:]
    rows = -(-height // 2)
    kernel = values.new_tensor(_HALVING).expand(values.shape[1] + 1, 1, 4)
    means, known = (values.new_empty(*p.shape[:2], rows, -(-width // 2)) for p in (values, weight))
    for band, *_ in bands_of(rows):
        # a row comes from four: the one before its pair, its pair, and the one after
        source = slice(max(0, 2 * band.start - 1), min(height, 2 * band.stop + 1))
        part = torch.cat([values[..., source, :] * weight[..., source, :], weight[..., source, :]], dim=1)
        # odd sides repeat their last line once more, so that halving loses nothing
        above, below = int(band.start == 0), 2 * band.stop + 1 - source.stop
        part = F.pad(part, (1, 1 + width % 2, above, below), mode="replicate")
        part = F.conv2d(part, kernel[:, :, None], stride=(1, 2), groups=len(kernel))
        part = F.conv2d(part, kernel[..., None], stride=(2, 1), groups=len(kernel))
        cover = part[:, -1:]
        means[..., band, :] = part[:, :-1] / cover.clamp_min(1e-12)
        known[..., band, :] = (4.0 * cover).clamp_max(1.0)  # one known pixel of four is enough
        report((source.stop - source.start) * width)
    return means, known


def _pulled(coarse: Tensor, values: Tensor, weight: Tensor, report: Callable[[int], None]) -> Tensor:
    """A level with its gaps filled from the coarser one, bilinearly."""
    height, width = values.shape[-2:]
    last = coarse.shape[-2] - 1
    filled = torch.empty_like(values)
    for band, *_ in bands_of(height):
        rows = torch.arange(band.start, band.stop, dtype=values.dtype, device=values.device)
        at = ((rows + 0.5) * ((last + 1) / height) - 0.5).clamp(0.0, last)
        low = at.long().clamp_max(max(0, last - 1))
        share = (at - low)[:, None]
        wide = torch.lerp(coarse[..., low, :], coarse[..., (low + 1).clamp_max(last), :], share)
        wide = F.interpolate(wide, size=(*wide.shape[-2:-1], width), mode="bilinear", align_corners=False)
        filled[..., band, :] = torch.lerp(wide, values[..., band, :], weight[..., band, :])
        report((band.stop - band.start) * width)
    return filled
