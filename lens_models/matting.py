"""Closed-form matting (Levin, Lischinski and Weiss, 2008): how much of a pixel belongs to the nearer layer.

In any small window the matte is taken to be linear in colour. Summed over all windows that gives a
quadratic form; its product with a matte needs only box means, so no matrix is ever built.
Only a band along edges is in doubt: where that is narrow, means are taken over a list of its pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .cuts import dilated

_WINDOW = 3
#: Certain pixels around the doubtful ones that take part: two windows' reach and one to spare.
_RIM_SIDE = 7
#: Above this share of the picture sliding windows over all of it are faster than a list of pixels.
_LISTED_SHARE = 0.12

Mean = Callable[[Tensor], Tensor]


def _sliding_mean(planes: Tensor) -> Tensor:
    """Means over 3 x 3 windows of `(C, H, W)`: sums along one axis, then the other, faster than pooling."""
    padded = F.pad(planes[None], (1,) * 4, mode="replicate")[0]
    rows = padded[:, :-2] + padded[:, 1:-1]
    rows += padded[:, 2:]
    total = rows[..., :-2] + rows[..., 1:-1]
    total += rows[..., 2:]
    return total.div_(_WINDOW**2)


def _listed_mean(chosen: Tensor) -> Mean:
    """The same for `(C, N)` values of the pixels of a mask; a neighbour outside it counts as the centre."""
    number = torch.full(chosen.shape, -1, dtype=torch.long, device=chosen.device)
    count = int(chosen.sum())
    number[chosen] = torch.arange(count, device=chosen.device)
    height, width = chosen.shape
    around = F.pad(number, (1, 1, 1, 1), value=-1)
    neighbours = torch.stack(
        [around[dy : dy + height, dx : dx + width][chosen] for dy in range(3) for dx in range(3)]
    )
    neighbours = torch.where(neighbours < 0, torch.arange(count, device=chosen.device), neighbours)

    def mean(values: Tensor) -> Tensor:
        total = values.index_select(1, neighbours[0])
        for index in neighbours[1:]:
            total += values.index_select(1, index)
        return total / len(neighbours)

    return mean


class _Laplacian:
    """The matting Laplacian of a picture, divided by the window's 9 pixels."""

    def __init__(self, picture: Tensor, smoothness: float, mean: Mean) -> None:
        self.picture, self.window = picture, mean
        self.mean = mean(picture)
        # a window of one hue is nearly singular: float32 would lose the inverse
        exact = picture.double()
        means = mean(exact)
        ridge = smoothness / _WINDOW**2
        (rr, rg, rb), (_, gg, gb), (_, _, bb) = (
            mean(exact[i : i + 1] * exact) - means[i : i + 1] * means for i in range(3)
        )
        rr, gg, bb = rr + ridge, gg + ridge, bb + ridge
        cofactors = (
            gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb,
            rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg,
        )  # fmt: skip
        determinant = (rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2]).clamp_min(1e-24)
        self.inverse = [(c / determinant).to(picture.dtype) for c in cofactors]

    def __call__(self, matte: Tensor) -> Tensor:
        mean = self.window(matte)
        r, g, b = self.window(self.picture * matte) - self.mean * mean
        i = self.inverse
        slope = torch.stack(
            [i[0] * r + i[1] * g + i[2] * b, i[1] * r + i[3] * g + i[4] * b, i[2] * r + i[4] * g + i[5] * b]
        )
        offset = mean - (slope * self.mean).sum(0, keepdim=True)
        return matte - (self.window(slope) * self.picture).sum(0, keepdim=True) - self.window(offset)


@torch.no_grad()
def closed_form_matte(
    picture: Tensor, guess: Tensor, trust: Tensor, *, iterations: int = 60, smoothness: float = 1e-4
) -> Tensor:
    """The matte that follows the picture's edges and stays near a guess where that is trusted.

    picture: `(3, H, W)` sRGB 0..1; guess: `(1, H, W)` 0..1; trust: `(1, H, W)` >= 0, 1 = certain.
    Returns `(1, H, W)` 0..1 after some steps of preconditioned conjugate gradients, without gradients.
    """
    chosen = dilated(trust[0] < 1.0, _RIM_SIDE)
    if chosen.double().mean() < _LISTED_SHARE:
        result = guess.clone()
        listed = [planes[:, chosen] for planes in (picture, guess, trust)]
        result[:, chosen] = _solved(
            *listed, iterations, _Laplacian(listed[0], smoothness, _listed_mean(chosen))
        )
        return result
    return _solved(picture, guess, trust, iterations, _Laplacian(picture, smoothness, _sliding_mean))


def _solved(picture: Tensor, guess: Tensor, trust: Tensor, iterations: int, laplacian: _Laplacian) -> Tensor:
    """Conjugate gradients on planes `(C, H, W)` or lists `(C, N)`."""
    pull = 10.0 * trust  # certain pixels weigh ten times the picture's own evidence

    matte = guess.clone()
    residual = pull * guess - laplacian(matte) - pull * matte
    scale = 1.0 / (pull + 0.3)
    step = scaled = scale * residual
    power = start = (residual * scaled).sum()
    for _ in range(iterations):
        if not power > 1e-10 * start:
            break
        pushed = laplacian(step) + pull * step
        length = power / (step * pushed).sum()
        matte = matte + length * step
        residual = residual - length * pushed
        scaled = scale * residual
        previous, power = power, (residual * scaled).sum()
        step = scaled + (power / previous) * step
    return torch.where(torch.isfinite(matte), matte, guess).clamp(0.0, 1.0)
